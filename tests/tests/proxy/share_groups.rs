//! A share group (KIP-932) reads through the proxy: what its members are given, acknowledged and told of the group is the
//! broker's, and they reach it by the proxy's address alone.

use anyhow::Result;
use kachet_core::time::MaxStaleness;
use kachet_tests::kafka::shared_kafka;
use kachet_tests::{kcat, records};

use crate::tools::{of_both, sorted, tool};
use crate::{blocking, proxy_before};

const TOPIC: &str = "proxy-share";
const GROUP: &str = "proxy-share-group";
const RECORDS: u32 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_group_is_given_each_record_once() -> Result<()> {
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    if !kcat::is_there() {
        return Ok(());
    }
    let fresh = MaxStaleness::Within(core::time::Duration::from_secs(1));
    let proxy = proxy_before(&broker.bootstrap(), fresh).await?;
    let (through, direct) = (proxy.address().to_string(), broker.bootstrap());
    blocking(move || {
        let create = ["--create", "--topic", TOPIC, "--partitions", "1"];
        tool("TopicCommand", &through, &create, "")?;
        let values: Vec<String> = (0..RECORDS).map(|index| records::value(17, index)).collect();
        kcat::produce(&through, TOPIC, 0, "zstd", &values)?;
        // A share group begins at the end unless it is told otherwise.
        let begin = [
            "--alter",
            "--entity-type",
            "groups",
            "--entity-name",
            GROUP,
            "--add-config",
            "share.auto.offset.reset=earliest",
        ];
        tool("ConfigCommand", &through, &begin, "")?;

        let mut given = Vec::new();
        // The second member begins where the first has acknowledged.
        for count in [RECORDS / 3, RECORDS - RECORDS / 3] {
            let count = count.to_string();
            let read = ["--topic", TOPIC, "--group", GROUP, "--max-messages", &count];
            let said = tool("consumer.ConsoleShareConsumer", &through, &read, "")?;
            given.extend(said.lines().map(str::to_owned));
        }
        let mut expected: Vec<&str> = values.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(sorted(&given.join("\n")), expected, "each of them once");

        let describe = ["--describe", "--group", GROUP];
        let [own, other] = of_both(&through, &direct, "consumer.group.ShareGroupCommand", &describe)?;
        assert!(own.contains(TOPIC), "{own}");
        assert_eq!(own, other);
        Ok(())
    })
    .await
}
