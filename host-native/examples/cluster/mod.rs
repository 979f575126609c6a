//! The cluster that an example reads: the one of `--bootstrap HOST:PORT` and `--topic NAME`, or else a broker inside
//! this process with a topic that looks like a shop's.

use std::env;
use std::error::Error;

use kachet::demo::broker::{BrokerSettings, EmbeddedBroker};
use kachet::demo::records::{EVENTS_PER_LZ4_BATCH, Events, Packing, pack};

/// What is read.
pub(crate) struct Cluster {
    /// `HOST:PORT`, or several with commas between them.
    pub(crate) bootstrap: String,
    /// The topic, of which partition 0 is read.
    pub(crate) topic: String,
    /// Lives as long as the example does.
    _broker: Option<EmbeddedBroker>,
}

impl Cluster {
    /// By the arguments of this process.
    pub(crate) async fn of_arguments() -> Result<Self, Box<dyn Error>> {
        let (mut bootstrap, mut topic) = (None, None);
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next();
            match (name.as_str(), value) {
                ("--bootstrap", Some(value)) => bootstrap = Some(value),
                ("--topic", Some(value)) => topic = Some(value),
                _ => return Err("usage: [--bootstrap HOST:PORT --topic NAME]".into()),
            }
        }
        match (bootstrap, topic) {
            (Some(bootstrap), Some(topic)) => Ok(Self {
                bootstrap,
                topic,
                _broker: None,
            }),
            (None, None) => Self::inside().await,
            _ => Err("--bootstrap and --topic go together".into()),
        }
    }

    async fn inside() -> Result<Self, Box<dyn Error>> {
        let broker = EmbeddedBroker::start(BrokerSettings::default()).await?;
        let topic = "orders".to_owned();
        broker.create_topic(&topic, 1)?;
        let mut events = Events::new(1);
        for _ in 0..100 {
            let batch: Vec<_> = events.by_ref().take(EVENTS_PER_LZ4_BATCH).collect();
            broker.append(&topic, 0, pack(&batch, Packing::Lz4)?)?;
        }
        Ok(Self {
            bootstrap: broker.address().to_string(),
            topic,
            _broker: Some(broker),
        })
    }
}
