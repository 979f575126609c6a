//! A broker that answers what a test says.

use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kachet::transport::BrokerAddress;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{ApiVersionsResponse, BrokerId, MetadataResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const NODE_ID: i32 = 7;
/// Key, oldest and newest version; none that is asked here is flexible but that of Produce.
const RANGES: [(i16, i16, i16); 9] = [
    (0, 3, 9),
    (1, 4, 11),
    (2, 1, 5),
    (3, 0, 8),
    (8, 2, 7),
    (10, 0, 2),
    (17, 0, 1),
    (18, 0, 3),
    (36, 0, 1),
];

/// A request as the broker gets it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The connection's number, from 0.
    pub(crate) connection: usize,
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) client: String,
    /// The whole frame without its size.
    pub(crate) frame: Bytes,
}

/// What the broker does.
pub(crate) enum Does {
    /// Answers with this behind the correlation id.
    Answer(Bytes),
    /// Nothing, and goes on with the next.
    Nothing,
    /// Closes the connection.
    Close,
    /// These bytes as they are.
    Raw(Bytes),
    /// Answers and closes.
    AnswerAndClose(Bytes),
}

pub(crate) struct Scripted {
    pub(crate) address: BrokerAddress,
    /// Every request but those for versions and metadata.
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Does + Send + Sync + Copy + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = BrokerAddress {
            host: "127.0.0.1".into(),
            port: listener.local_addr().unwrap().port(),
        };
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, own) = (Arc::clone(&asked), address.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, own) = (Arc::clone(&seen), own.clone());
                tokio::spawn(async move { converse(number, stream, &seen, &own, answer).await });
            }
        });
        Self { address, asked }
    }

    /// The clients whose requests of this API came, in order.
    pub(crate) fn clients_of(&self, api_key: i16) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let of_api = asked.iter().filter(|asked| asked.api_key == api_key);
        of_api.map(|asked| asked.client.clone()).collect()
    }
}

async fn converse(
    connection: usize,
    mut stream: TcpStream,
    seen: &Mutex<Vec<Asked>>,
    own: &BrokerAddress,
    answer: impl Fn(&Asked) -> Does,
) -> Option<()> {
    loop {
        let size = stream.read_u32().await.ok()?;
        let mut frame = vec![0; usize::try_from(size).unwrap()];
        stream.read_exact(&mut frame).await.ok()?;
        let frame = Bytes::from(frame);
        let mut head = frame.clone();
        let (api_key, version) = (head.get_i16(), head.get_i16());
        let correlation_id = head.get_i32();
        let client = head.get_i16();
        let client =
            String::from_utf8(head.split_to(usize::try_from(client.max(0)).unwrap()).to_vec()).unwrap();
        let asked = Asked {
            connection,
            api_key,
            version,
            client,
            frame,
        };
        let does = match api_key {
            18 => Does::Answer(versions(version)),
            3 => Does::Answer(metadata(version, own)),
            _ => {
                seen.lock().unwrap().push(asked.clone());
                answer(&asked)
            }
        };
        let (body, closes) = match does {
            Does::Answer(body) => (body, false),
            Does::AnswerAndClose(body) => (body, true),
            Does::Nothing => continue,
            Does::Raw(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                continue;
            }
            Does::Close => return None,
        };
        let mut response = BytesMut::new();
        response.put_u32(u32::try_from(4 + body.len()).unwrap());
        response.put_i32(correlation_id);
        response.put_slice(&body);
        stream.write_all(&response).await.ok()?;
        if closes {
            return None;
        }
    }
}

fn versions(version: i16) -> Bytes {
    let range = |(key, min, max)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(min)
            .with_max_version(max)
    };
    let versions = ApiVersionsResponse::default().with_api_keys(RANGES.map(range).to_vec());
    encoded(&versions, version)
}

fn metadata(version: i16, own: &BrokerAddress) -> Bytes {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(StrBytes::from_string(own.host.clone()))
        .with_port(own.port.into());
    encoded(&MetadataResponse::default().with_brokers(vec![broker]), version)
}

pub(crate) fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    message.encode(&mut body, version).unwrap();
    body.freeze()
}
