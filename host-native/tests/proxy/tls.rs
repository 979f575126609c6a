//! Clients that speak TLS, with and without a certificate of their own, before a broker in plaintext.

use core::time::Duration;
use std::path::Path;

use anyhow::Result;
use kachet::cache::Cache;
use kachet::client::{Client, ClientSettings};
use kachet::demo::broker::NODE_ID;
use kachet::proxy::{Limits, Proxy, ProxySettings};
use kachet::transport::{Security, TcpSettings, TcpTransport, TlsListenerSettings, TlsSettings};
use kachet_tests::certificates::{Authority, Validity};
use tokio::io::AsyncWriteExt;

use crate::{CachingProxy, TOPIC, broker_port, broker_with, client, ends, settings};

async fn proxy_with(
    broker: &kachet::demo::broker::EmbeddedBroker,
    tls: TlsListenerSettings,
) -> Result<CachingProxy> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default())).size_limit_bytes(1 << 20);
    let limits = Limits {
        request_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let settings = ProxySettings {
        tls: Some(tls),
        advertise: Some("localhost".to_owned()),
        ..settings(broker.address(), limits)
    };
    Ok(Proxy::start(settings, cache.build()).await?)
}

fn reader(proxy: &CachingProxy, ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Client<TcpTransport>> {
    let mut tls = TlsSettings::builder().ca_file(ca);
    if let Some((certificate, key)) = identity {
        tls = tls.client_certificate(certificate, key);
    }
    let tcp = TcpSettings {
        security: Security {
            tls: Some(tls.build()?),
            sasl: None,
        },
        ..TcpSettings::default()
    };
    let bootstrap = format!("localhost:{}", proxy.address().port()).parse()?;
    let retries = ClientSettings {
        retry_timeout: Duration::from_millis(200),
        ..ClientSettings::default()
    };
    Ok(Client::new(TcpTransport::new(tcp), vec![bootstrap], retries)?)
}

#[tokio::test]
async fn clients_speak_tls_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let identity = authority.sign("proxy", &["localhost"], Validity::Current)?;
    let broker = broker_with(1, 200).await?;
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, None)?;
    let proxy = proxy_with(&broker, tls).await?;
    let through = reader(&proxy, &authority.file, None)?;
    for offset in [0, 5, 1_999] {
        let record = through.record(TOPIC, 0, offset).await?;
        assert_eq!(record.map(|record| record.offset), Some(offset));
    }
    assert_eq!(through.records(TOPIC, 0, 0, 2_000).await?.len(), 2_000);
    let mut plain = client::Client::to(broker_port(&proxy, NODE_ID)).await;
    plain.send(18, 0, b"").await;
    // An alert, or the end; no answer of Kafka's.
    let mut said = Vec::new();
    let _reset = tokio::io::AsyncReadExt::read_to_end(&mut plain.stream, &mut said).await;
    assert!(said.is_empty() || said[0] == 0x15, "{said:?}");
    assert_eq!(ends(&proxy, "tls"), 1);
    // Half a handshake is waited for no longer than half a request.
    let mut half = client::Client::to(proxy.address()).await;
    half.stream.write_all(&[0x16, 3, 1]).await?;
    assert!(half.receive().await.is_none());
    assert_eq!(ends(&proxy, "slow"), 1);
    Ok(())
}

#[tokio::test]
async fn clients_without_the_right_certificate_are_not_let_in_where_one_is_demanded() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let others = Authority::new(folder.path(), "others")?;
    let identity = authority.sign("proxy", &["localhost"], Validity::Current)?;
    let friend = authority.sign("friend", &["friend"], Validity::Current)?;
    let stranger = others.sign("stranger", &["stranger"], Validity::Current)?;
    let broker = broker_with(1, 2).await?;
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, Some(&authority.file))?;
    let proxy = proxy_with(&broker, tls).await?;
    let let_in = reader(&proxy, &authority.file, Some((&friend.certificate, &friend.key)))?;
    assert!(let_in.record(TOPIC, 0, 3).await?.is_some());
    for identity in [
        None,
        Some((stranger.certificate.as_path(), stranger.key.as_path())),
    ] {
        let kept_out = reader(&proxy, &authority.file, identity)?;
        assert!(kept_out.record(TOPIC, 0, 3).await.is_err());
    }
    assert!(ends(&proxy, "tls") >= 2);
    Ok(())
}

#[tokio::test]
async fn certificates_are_read_anew_for_new_connections_and_bad_ones_are_not_taken() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let before = Authority::new(folder.path(), "before")?;
    let after = Authority::new(folder.path(), "after")?;
    let identity = before.sign("proxy", &["localhost"], Validity::Current)?;
    let broker = broker_with(1, 2).await?;
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, None)?;
    let proxy = proxy_with(&broker, tls.clone()).await?;
    let early = reader(&proxy, &before.file, None)?;
    assert!(early.record(TOPIC, 0, 3).await?.is_some());

    // In the place of the files from before.
    after.sign("proxy", &["localhost"], Validity::Current)?;
    assert!(
        reader(&proxy, &after.file, None)?
            .record(TOPIC, 0, 3)
            .await
            .is_err()
    );
    tls.reload()?;
    assert!(
        reader(&proxy, &after.file, None)?
            .record(TOPIC, 0, 3)
            .await?
            .is_some()
    );
    assert!(
        reader(&proxy, &before.file, None)?
            .record(TOPIC, 0, 3)
            .await
            .is_err()
    );
    // A connection that there was goes on.
    assert!(early.record(TOPIC, 0, 4).await?.is_some());

    let key = std::fs::read(&identity.key)?;
    std::fs::write(&identity.key, "nothing of the kind")?;
    let said = tls.reload().unwrap_err().to_string();
    assert!(said.contains("proxy.key.pem"), "{said}");
    // A new certificate whose key has not been put there yet.
    std::fs::write(&identity.key, key)?;
    before.sign("other", &["localhost"], Validity::Current)?;
    std::fs::copy(folder.path().join("other.certificate.pem"), &identity.certificate)?;
    assert!(tls.reload().is_err());
    assert!(
        reader(&proxy, &after.file, None)?
            .record(TOPIC, 0, 3)
            .await?
            .is_some()
    );
    let metrics = proxy.monitor().metrics(&proxy.cache().statistics());
    for line in [
        "kachet_proxy_certificate_reloads_total{outcome=\"done\"} 1",
        "kachet_proxy_certificate_reloads_total{outcome=\"failed\"} 2",
    ] {
        assert!(
            metrics.lines().any(|said| said == line),
            "no '{line}' in {metrics}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn whose_clients_are_let_in_is_read_anew_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let others = Authority::new(folder.path(), "others")?;
    let identity = authority.sign("proxy", &["localhost"], Validity::Current)?;
    let friend = authority.sign("friend", &["friend"], Validity::Current)?;
    let stranger = others.sign("stranger", &["stranger"], Validity::Current)?;
    let clients = folder.path().join("clients.pem");
    std::fs::copy(&authority.file, &clients)?;
    let broker = broker_with(1, 2).await?;
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, Some(&clients))?;
    let proxy = proxy_with(&broker, tls.clone()).await?;
    let comes_in = async |identity: &kachet_tests::certificates::Identity| -> Result<bool> {
        let reader = reader(
            &proxy,
            &authority.file,
            Some((&identity.certificate, &identity.key)),
        )?;
        Ok(reader.record(TOPIC, 0, 3).await.is_ok())
    };
    assert_eq!(
        (comes_in(&friend).await?, comes_in(&stranger).await?),
        (true, false)
    );
    std::fs::copy(&others.file, &clients)?;
    tls.reload()?;
    assert_eq!(
        (comes_in(&friend).await?, comes_in(&stranger).await?),
        (false, true)
    );
    std::fs::write(&clients, "")?;
    assert!(tls.reload().is_err());
    assert_eq!(
        (comes_in(&friend).await?, comes_in(&stranger).await?),
        (false, true)
    );
    Ok(())
}
