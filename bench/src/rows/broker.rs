//! A real Kafka on this machine.

use anyhow::Result;
use kachet_tests::kafka::{KafkaBroker, KafkaSettings};
use kachet_tests::setup;

use crate::report::Section;

/// A broker that runs as a server does; where there is none, the section says why it measures nothing.
pub(super) fn start(section: &mut Section) -> Result<Option<KafkaBroker>> {
    if let Err(missing) = setup::kafka_classpath() {
        section
            .not_measured
            .push(format!("everything here: {missing:#}."));
        return Ok(None);
    }
    let settings = KafkaSettings {
        is_measured: true,
        ..KafkaSettings::default()
    };
    KafkaBroker::start(&settings).map(Some)
}
