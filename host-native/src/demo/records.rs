//! Records that look like those of a shop: orders, payments and shipments as JSON, the same for the same seed.

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use serde_json::{Value, json};
use std::io::Write;

/// The timestamp of the first event, in milliseconds since 1970: 2025-01-01, 00:00 UTC.
pub const FIRST_TIMESTAMP_MS: i64 = 1_735_689_600_000;
/// How many events make an lz4 batch of about 16 KiB, which is what producers fill by default (`batch.size`).
pub const EVENTS_PER_LZ4_BATCH: usize = 44;

const ADJECTIVES: [&str; 12] = [
    "brushed",
    "compact",
    "ergonomic",
    "folding",
    "handmade",
    "insulated",
    "light",
    "oiled",
    "quiet",
    "rugged",
    "stackable",
    "woven",
];
const MATERIALS: [&str; 10] = [
    "aluminium",
    "bamboo",
    "ceramic",
    "copper",
    "cotton",
    "glass",
    "leather",
    "linen",
    "oak",
    "steel",
];
const PRODUCTS: [&str; 14] = [
    "backpack",
    "bench",
    "blanket",
    "bowl",
    "chair",
    "desk lamp",
    "kettle",
    "keyboard",
    "mug",
    "notebook",
    "planter",
    "shelf",
    "tray",
    "umbrella",
];
const FIRST_NAMES: [&str; 12] = [
    "Ada", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hanna", "Ines", "Jakob", "Kenji", "Lucía",
];
const LAST_NAMES: [&str; 12] = [
    "Andersen",
    "Bianchi",
    "Chen",
    "Dubois",
    "Evans",
    "Fischer",
    "García",
    "Hughes",
    "Ivanova",
    "Jensen",
    "Kaya",
    "Lindqvist",
];
const CITIES: [(&str, &str); 8] = [
    ("Lisboa", "PT"),
    ("Rotterdam", "NL"),
    ("Gdańsk", "PL"),
    ("Lyon", "FR"),
    ("Graz", "AT"),
    ("Bilbao", "ES"),
    ("Aarhus", "DK"),
    ("Leipzig", "DE"),
];
const CARRIERS: [&str; 5] = [
    "Kestrel Express",
    "Norrland Cargo",
    "PostVia",
    "Quayside",
    "Tramontana",
];
const METHODS: [&str; 4] = ["card", "direct_debit", "invoice", "wallet"];
const CURRENCIES: [&str; 4] = ["DKK", "EUR", "PLN", "SEK"];

/// One event, ready to become a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in milliseconds since 1970. Never before the event that precedes it.
    pub timestamp_ms: i64,
    /// The order that it is about.
    pub key: Bytes,
    /// JSON of about 0.5 to 1.5 KiB.
    pub value: Bytes,
    /// Its type, where it comes from, and a trace id.
    pub headers: Vec<(&'static str, Bytes)>,
}

/// Gives events without end, the same ones for the same seed.
#[derive(Clone, Debug)]
pub struct Events {
    random: Rng,
    timestamp_ms: i64,
    orders: u64,
}

impl Events {
    /// Starts at [`FIRST_TIMESTAMP_MS`].
    pub fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            timestamp_ms: FIRST_TIMESTAMP_MS,
            orders: 0,
        }
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        self.random.choice(choices).copied()
    }

    fn word(&mut self, choices: &[&'static str]) -> &'static str {
        self.pick(choices).unwrap_or_default()
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits)
            .map(|_| char::from_digit(self.random.u32(..16), 16).unwrap_or('0'))
            .collect()
    }

    /// A price, in cents.
    fn cents(&mut self) -> u32 {
        self.random.u32(299..18_999)
    }

    /// An order, or what happens to one of the last hundred.
    fn order_number(&mut self, is_new: bool) -> u64 {
        if is_new {
            self.orders += 1;
            return self.orders;
        }
        self.random
            .u64(self.orders.saturating_sub(100)..=self.orders)
            .max(1)
    }

    fn address(&mut self) -> Value {
        let (city, country) = self.pick(&CITIES).unwrap_or_default();
        json!({
            "street": format!("{} {}", self.word(&LAST_NAMES), self.random.u32(1..180)),
            "postalCode": format!("{:05}", self.random.u32(1000..99_999)),
            "city": city,
            "country": country,
        })
    }

    fn order(&mut self) -> Value {
        let (first, last) = (self.word(&FIRST_NAMES), self.word(&LAST_NAMES));
        let number = self.random.u32(1..9_999);
        let items: Vec<Value> = (0..self.random.usize(2..=6)).map(|_| self.item()).collect();
        json!({
            "type": "order.placed",
            "customer": {
                "id": format!("c-{}", self.hex(12)),
                "name": format!("{first} {last}"),
                "email": format!("{}.{}{number}@example.com", first.to_lowercase(), last.to_lowercase()),
                "shippingAddress": self.address(),
            },
            "currency": self.word(&CURRENCIES),
            "items": items,
            "couponCode": if self.random.u8(..8) == 0 { Value::from(self.hex(8)) } else { Value::Null },
            "sessionId": self.hex(32),
        })
    }

    fn item(&mut self) -> Value {
        let (adjective, material) = (self.word(&ADJECTIVES), self.word(&MATERIALS));
        json!({
            "sku": format!("SKU-{}", self.hex(10)),
            "description": format!("{adjective} {material} {}", self.word(&PRODUCTS)),
            "quantity": self.random.u32(1..5),
            "unitPriceCents": self.cents(),
            "warehouse": format!("wh-{}", self.random.u32(1..24)),
        })
    }

    fn payment(&mut self) -> Value {
        json!({
            "type": "payment.captured",
            "paymentId": format!("pay-{}", self.hex(24)),
            "method": self.word(&METHODS),
            "amountCents": self.cents(),
            "currency": self.word(&CURRENCIES),
            "authorisation": {
                "code": self.hex(12),
                "reference": self.hex(40),
                "riskScore": f64::from(self.random.u32(..1000)) / 1000.0,
                "checks": ["address", "cvc", "velocity"],
            },
            "billingAddress": self.address(),
            "signature": self.hex(128),
        })
    }

    fn shipment(&mut self) -> Value {
        let mut at = self.timestamp_ms;
        let mut checkpoint = || {
            at -= self.random.i64(60_000..7_200_000);
            json!({ "address": self.address(), "atMs": at, "scan": self.hex(16), "state": "in_transit" })
        };
        let checkpoints: Vec<Value> = (0..4).map(|_| checkpoint()).collect();
        json!({
            "type": "shipment.moved",
            "carrier": self.word(&CARRIERS),
            "trackingNumber": self.hex(20).to_uppercase(),
            "weightGrams": self.random.u32(120..24_000),
            "checkpoints": checkpoints,
            "destination": self.address(),
        })
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.timestamp_ms += self.random.i64(0..40);
        let kind = if self.orders == 0 { 0 } else { self.random.u8(..4) };
        let order = self.order_number(kind < 2);
        let (source, mut value) = match kind {
            0 | 1 => ("checkout", self.order()),
            2 => ("payments", self.payment()),
            _ => ("fulfilment", self.shipment()),
        };
        value["orderId"] = format!("o-{order:012}").into();
        value["occurredAtMs"] = self.timestamp_ms.into();
        let kind = value["type"].as_str().unwrap_or_default().to_owned();
        Some(Event {
            timestamp_ms: self.timestamp_ms,
            key: format!("o-{order:012}").into(),
            value: value.to_string().into(),
            headers: vec![
                ("type", kind.into()),
                ("source", Bytes::from_static(source.as_bytes())),
                (
                    "traceparent",
                    format!("00-{}-{}-01", self.hex(32), self.hex(16)).into(),
                ),
            ],
        })
    }
}

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// As an LZ4 frame.
    Lz4,
}

/// Events could not be packed into a batch.
#[derive(Debug, thiserror::Error)]
#[error("cannot pack {count} events into one record batch: {message}")]
pub struct PackError {
    count: usize,
    message: String,
}

/// Packs events into one record batch, as a producer without an id does: the base offset is 0, the leader
/// epoch is left to the broker.
pub fn pack(events: &[Event], packing: Packing) -> Result<Bytes, PackError> {
    let failed = |message: String| PackError {
        count: events.len(),
        message,
    };
    if events.is_empty() {
        return Err(failed("a batch holds at least one record".into()));
    }
    let compression = match packing {
        Packing::Plain => Compression::None,
        Packing::Lz4 => Compression::Lz4,
    };
    let records: Vec<Record> = (0..)
        .zip(events)
        .map(|(index, event)| record(index, event))
        .collect();
    let mut batch = BytesMut::new();
    let compress = |records: &mut BytesMut, batch: &mut BytesMut, compression: Compression| {
        if compression == Compression::None {
            batch.put_slice(records);
            return Ok(());
        }
        // The frame of Kafka's own producer: independent blocks of 64 KiB, no checksum of the content.
        let info = FrameInfo::new().block_size(BlockSize::Max64KB);
        let mut frame = FrameEncoder::with_frame_info(info, batch.writer());
        frame.write_all(records)?;
        frame.finish()?;
        Ok(())
    };
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode_with_custom_compression(&mut batch, &records, &options, Some(compress))
        .map_err(|error| failed(error.to_string()))?;
    Ok(batch.freeze())
}

fn record(index: i32, event: &Event) -> Record {
    let headers = event.headers.iter();
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: index.into(),
        // The encoder starts a new batch where sequence and offset do not go in step; the batch's own sequence
        // is that of its first record.
        sequence: NO_SEQUENCE.wrapping_add(index),
        timestamp: event.timestamp_ms,
        key: Some(event.key.clone()),
        value: Some(event.value.clone()),
        headers: headers
            .map(|(key, value)| (StrBytes::from_static_str(key), Some(value.clone())))
            .collect(),
    }
}
