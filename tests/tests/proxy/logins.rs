//! A cluster with an authorizer: what one principal has read is not given to another who may not (H19).

use core::time::Duration;

use anyhow::Result;
use kachet::cache::Cache;
use kachet::proxy::{Proxy, ProxySettings};
use kachet::transport::{SaslCredentials, Security, TcpSettings, TcpTransport};
use kachet_tests::java::TopicWriter;
use kachet_tests::kafka::{KafkaSettings, Listener, free_ports, own_kafka};
use kachet_tests::kcat;

use crate::{CACHE_BYTES, CachingProxy, blocking};

const TOPIC: &str = "proxy-secrets";
const TTL: Duration = Duration::from_millis(800);

fn kafka_with_an_authorizer(port: u16) -> KafkaSettings {
    let login = Listener {
        name: "LOGIN".to_owned(),
        protocol: "SASL_PLAINTEXT",
        port,
    };
    let settings = KafkaSettings {
        extra_listeners: vec![login],
        scram_users: vec!["SCRAM-SHA-256=[name=kachet,password=of-kachet]".to_owned()],
        ..KafkaSettings::default()
    };
    settings
        .with(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )
        // The plaintext listener's clients, the broker's own among them, and the cache.
        .with("super.users", "User:ANONYMOUS;User:kachet")
        .with("allow.everyone.if.no.acl.found", "true")
        .with(
            "listener.name.login.sasl.enabled.mechanisms",
            "SCRAM-SHA-256,PLAIN",
        )
        // librdkafka 2.0.2, which Debian's kcat has, does not get through SCRAM with this broker, with or without a proxy.
        .with(
            "listener.name.login.plain.sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_alice=\"of-alice\" user_mallory=\"of-mallory\";",
        )
        .with(
            "listener.name.login.scram-sha-256.sasl.jaas.config",
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        )
}

async fn proxy_before(bootstrap: &str) -> Result<CachingProxy> {
    let tcp = TcpSettings {
        security: Security {
            tls: None,
            sasl: Some(SaslCredentials::scram_sha_256("kachet", "of-kachet".to_owned())),
        },
        ..TcpSettings::default()
    };
    let cache = Cache::builder(TcpTransport::new(tcp.clone())).size_limit_bytes(CACHE_BYTES);
    let settings = ProxySettings {
        tcp,
        authorization_ttl: TTL,
        ..ProxySettings::new(([127, 0, 0, 1], 0).into(), vec![bootstrap.parse()?])
    };
    Ok(Proxy::start(settings, cache.build()).await?)
}

/// The whole partition, read by a user with several fetches.
fn read_as(user: &str, bootstrap: &str) -> Result<Vec<u8>> {
    let (name, password) = (
        format!("sasl.username={user}"),
        format!("sasl.password=of-{user}"),
    );
    let arguments = [
        "-C", "-q", "-e", "-b", bootstrap, "-t", TOPIC, "-p", "0", "-o", "0",
    ];
    let login = [
        "-X",
        "security.protocol=SASL_PLAINTEXT",
        "-X",
        "sasl.mechanism=PLAIN",
    ];
    let small = [
        "-X",
        "fetch.message.max.bytes=2000",
        "-X",
        "fetch.wait.max.ms=50",
        "-X",
        &name,
        "-X",
        &password,
    ];
    kcat::run(&[&arguments[..], &login, &small].concat(), b"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_authorizer_denies_gets_nothing_of_what_is_cached() -> Result<()> {
    let [port] = free_ports()?;
    let Some(broker) = own_kafka(&kafka_with_an_authorizer(port)) else {
        return Ok(());
    };
    if !kcat::is_there() {
        return Ok(());
    }
    let proxy = proxy_before(&format!("127.0.0.1:{port}")).await?;
    let (through, direct) = (proxy.address().to_string(), broker.bootstrap());
    let cached = proxy.cache().clone();
    blocking(move || {
        let mut writer = TopicWriter::start(&direct)?;
        writer.command(&format!("create {TOPIC} 1"))?;
        writer.produce(TOPIC, 0, "lz4", (400, 10), 5)?;
        writer.command(&format!("let-read {TOPIC} alice"))?;
        let plain = ["-C", "-q", "-e", "-b", &direct, "-t", TOPIC, "-p", "0", "-o", "0"];
        let own = kcat::run(&plain, b"")?;
        for _ in 0..2 {
            assert_eq!(read_as("alice", &through)?, own);
        }
        let hits = cached.statistics().hits;
        assert!(hits > 5, "{:?}", cached.statistics());
        let denied = read_as("mallory", &through).unwrap_err().to_string();
        assert!(denied.contains("authorization failed"), "{denied}");
        assert_eq!(cached.statistics().hits, hits);
        // What is taken back is denied soon.
        writer.command(&format!("no-longer-let-read {TOPIC} alice"))?;
        writer.command(&format!("let-read {TOPIC} bob"))?;
        let denied = read_as("alice", &through).unwrap_err().to_string();
        assert!(denied.contains("authorization failed"), "{denied}");
        assert_eq!(cached.statistics().hits, hits);
        Ok(())
    })
    .await
}
