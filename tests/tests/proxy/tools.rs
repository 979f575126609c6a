//! Kafka's own command line tools through the proxy say what they say of the broker.

use std::thread;

use anyhow::{Context, Result};
use kachet_core::time::MaxStaleness;
use kachet_tests::kafka::shared_kafka;
use kachet_tests::{java, records};

use crate::{JAVA_DEADLINE, blocking, proxy_before};

const TOPIC: &str = "proxy-tools";
const GROUP: &str = "proxy-tools-group";
const RECORDS: u32 = 400;

/// What a tool says.
pub(crate) fn tool(class: &str, bootstrap: &str, arguments: &[&str], stdin: &str) -> Result<String> {
    let arguments = [&["--bootstrap-server", bootstrap], arguments].concat();
    java::run_tool(class, &arguments, stdin, JAVA_DEADLINE)
}

/// The same said through the proxy and by the broker, at once.
pub(crate) fn of_both(through: &str, direct: &str, class: &str, arguments: &[&str]) -> Result<[String; 2]> {
    thread::scope(|scope| {
        let other = scope.spawn(|| tool(class, direct, arguments, ""));
        let own = tool(class, through, arguments, "")?;
        Ok([own, other.join().ok().context("the thread panicked")??])
    })
}

pub(crate) fn sorted(said: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn console_tools_administer_produce_and_consume() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let fresh = MaxStaleness::Within(core::time::Duration::from_secs(1));
    let proxy = proxy_before(&broker.bootstrap(), fresh).await?;
    let (through, direct) = (proxy.address().to_string(), broker.bootstrap());
    blocking(move || {
        let create = ["--create", "--topic", TOPIC, "--partitions", "2"];
        tool("TopicCommand", &through, &create, "")?;
        let values: Vec<String> = (0..RECORDS).map(|index| records::value(11, index)).collect();
        let to = ["--topic", TOPIC, "--compression-codec", "lz4"];
        tool("ConsoleProducer", &through, &to, &(values.join("\n") + "\n"))?;

        let count = RECORDS.to_string();
        let by_group = [
            "--topic",
            TOPIC,
            "--group",
            GROUP,
            "--from-beginning",
            "--max-messages",
            &count,
        ];
        let grouped = tool("consumer.ConsoleConsumer", &through, &by_group, "")?;
        let mut expected: Vec<&str> = values.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(sorted(&grouped), expected);
        // What the group has read is cached by now.
        let again = ["--topic", TOPIC, "--from-beginning", "--max-messages", &count];
        let [own, other] = of_both(&through, &direct, "consumer.ConsoleConsumer", &again)?;
        assert_eq!(sorted(&own), expected);
        assert_eq!(sorted(&other), expected);

        let describe = ["--describe", "--topic", TOPIC];
        let [own, other] = of_both(&through, &direct, "TopicCommand", &describe)?;
        assert!(own.contains("PartitionCount: 2"), "{own}");
        assert_eq!(own, other);
        let describe = ["--describe", "--group", GROUP];
        let [own, other] = of_both(
            &through,
            &direct,
            "consumer.group.ConsumerGroupCommand",
            &describe,
        )?;
        assert!(own.contains(GROUP), "{own}");
        assert_eq!(own, other);
        let read: u32 = own
            .lines()
            .filter(|line| line.starts_with(GROUP))
            .filter_map(|line| line.split_whitespace().nth(3)?.parse::<u32>().ok())
            .sum();
        assert_eq!(read, RECORDS, "{own}");
        Ok(())
    })
    .await?;
    let statistics = proxy.cache().statistics();
    assert!(statistics.hits > 0 && statistics.errors == 0, "{statistics:?}");
    Ok(())
}
