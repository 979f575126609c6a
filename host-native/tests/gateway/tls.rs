//! Clients that speak TLS, and certificates and tokens that are read anew.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kachet::core::time::MaxStaleness;
use kachet::demo::broker::EmbeddedBroker;
use kachet::gateway::{BearerTokens, GatewayLimits, GatewaySettings};
use kachet::proxy::Watched;
use kachet::transport::TlsListenerSettings;
use kachet_tests::certificates::{Authority, Identity, Validity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Client;
use crate::{CachingGateway, LONG, MINUTE, broker_with, settings, start};

const PATH: &str = "/v1/topics/orders/0/records/1";
const HTTP2: &[u8] = b"h2";

/// How a client speaks TLS.
struct Speaks<'a> {
    ca: &'a Path,
    identity: Option<&'a Identity>,
    protocols: &'a [&'a [u8]],
}

impl Speaks<'_> {
    async fn to(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.ca)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_file_iter(&identity.certificate)?;
                let chain = chain.collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&identity.key)?)?
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost")?;
        Ok(timeout(LONG, connector.connect(name, stream)).await??)
    }

    /// What a request is answered on a connection of its own.
    async fn status(&self, address: SocketAddr, headers: &[(&str, &str)]) -> Result<u16> {
        let mut client = Client::over(self.to(address).await?).await?;
        Ok(client.get_with(PATH, headers).await?.status)
    }
}

fn trusting(ca: &Path) -> Speaks<'_> {
    Speaks {
        ca,
        identity: None,
        protocols: &[],
    }
}

async fn gateway_with(broker: &EmbeddedBroker, tls: TlsListenerSettings) -> Result<CachingGateway> {
    let limits = GatewayLimits {
        request_timeout: Duration::from_millis(500),
        ..GatewayLimits::default()
    };
    let settings = GatewaySettings {
        tls: Some(tls),
        limits,
        ..settings(broker.address())
    };
    start(settings, MaxStaleness::Forever).await
}

fn figure(gateway: &CachingGateway, name: &str) -> Result<u64> {
    let metrics = gateway.monitor().metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("no such figure")?.trim().parse()?)
}

#[tokio::test]
async fn clients_speak_tls_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let identity = authority.sign("gateway", &["localhost"], Validity::Current)?;
    let (broker, _) = broker_with(1).await?;
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, None)?;
    let gateway = gateway_with(&broker, tls).await?;
    let address = gateway.address();

    for (protocols, chosen) in [
        (&[HTTP2, b"http/1.1"][..], Some(HTTP2)),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let speaks = Speaks {
            protocols,
            ..trusting(&authority.file)
        };
        let stream = speaks.to(address).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        let mut client = if chosen == Some(HTTP2) {
            Client::over_by_http2(stream).await?
        } else {
            Client::over(stream).await?
        };
        // The certificate says which name it is, so another page's name cannot lead here.
        let answer = client.get_with(PATH, &[("host", "cache.example.org")]).await?;
        assert_eq!(answer.status, 200, "{protocols:?}");
        assert_eq!(answer.json()["offset"], 1);
        assert!(
            answer.header("cache-control").starts_with("public, max-age="),
            "{answer:?}"
        );
    }

    let mut plain = TcpStream::connect(address).await?;
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut said = Vec::new();
    let _reset = timeout(LONG, plain.read_to_end(&mut said)).await?;
    // An alert, or the end; no answer of HTTP's.
    assert!(said.is_empty() || said[0] == 0x15, "{said:?}");
    // Half a handshake is waited for no longer than half a request.
    let mut half = TcpStream::connect(address).await?;
    half.write_all(&[0x16, 3, 1]).await?;
    let _reset = timeout(LONG, half.read_to_end(&mut said)).await?;
    let until = Instant::now() + LONG;
    while figure(&gateway, "kachet_gateway_handshakes_failed_total ")? < 2 {
        ensure!(Instant::now() < until, "they are not counted");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[tokio::test]
async fn where_a_certificate_is_demanded_it_takes_the_place_of_a_token() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let others = Authority::new(folder.path(), "others")?;
    let identity = authority.sign("gateway", &["localhost"], Validity::Current)?;
    let friend = authority.sign("friend", &["friend"], Validity::Current)?;
    let stranger = others.sign("stranger", &["stranger"], Validity::Current)?;
    let (broker, _) = broker_with(1).await?;
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, Some(&authority.file))?;
    let open = GatewaySettings {
        listen: ([0, 0, 0, 0], 0).into(),
        tls: Some(tls),
        ..settings(broker.address())
    };
    let gateway = start(open.clone(), MaxStaleness::Forever).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], gateway.address().port()));
    let as_friend = Speaks {
        identity: Some(&friend),
        ..trusting(&authority.file)
    };
    let mut client = Client::over(as_friend.to(address).await?).await?;
    let answer = client.get(PATH).await?;
    assert_eq!(answer.status, 200);
    assert!(
        answer.header("cache-control").starts_with("private"),
        "{answer:?}"
    );
    for identity in [None, Some(&stranger)] {
        let kept_out = Speaks {
            identity,
            ..trusting(&authority.file)
        };
        assert!(kept_out.status(address, &[]).await.is_err());
    }
    // TLS alone says nothing of who may read.
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, None)?;
    let anybody = GatewaySettings {
        tls: Some(tls),
        ..open
    };
    assert!(start(anybody, MINUTE).await.is_err());
    Ok(())
}

#[tokio::test]
async fn certificates_and_tokens_are_read_anew_and_bad_ones_are_not_taken() -> Result<()> {
    const OLD: &str = "Bearer correct-horse-battery-staple";
    const NEW: &str = "Bearer staple-battery-horse-correct";
    let folder = tempfile::tempdir()?;
    let before = Authority::new(folder.path(), "before")?;
    let after = Authority::new(folder.path(), "after")?;
    let identity = before.sign("gateway", &["localhost"], Validity::Current)?;
    let file = folder.path().join("tokens");
    std::fs::write(&file, &OLD["Bearer ".len()..])?;
    let (broker, _) = broker_with(1).await?;
    let tls = TlsListenerSettings::read(&identity.certificate, &identity.key, None)?;
    let tokens = BearerTokens::read(&file)?;
    let settings = GatewaySettings {
        tls: Some(tls.clone()),
        bearer_tokens: Some(tokens.clone()),
        ..settings(broker.address())
    };
    let gateway = start(settings, MINUTE).await?;
    let address = gateway.address();
    let (old, new) = ([("authorization", OLD)], [("authorization", NEW)]);
    let mut early = Client::over(trusting(&before.file).to(address).await?).await?;
    assert_eq!(early.get_with(PATH, &old).await?.status, 200);

    // In the place of the files from before.
    after.sign("gateway", &["localhost"], Validity::Current)?;
    std::fs::write(&file, &NEW["Bearer ".len()..])?;
    assert_eq!(early.get_with(PATH, &new).await?.status, 401);
    tls.reload()?;
    tokens.reload()?;
    assert_eq!(trusting(&after.file).status(address, &new).await?, 200);
    assert!(trusting(&before.file).status(address, &new).await.is_err());
    // A connection that there was goes on, and by the new tokens.
    assert_eq!(early.get_with(PATH, &new).await?.status, 200);
    assert_eq!(early.get_with(PATH, &old).await?.status, 401);

    std::fs::write(&identity.key, "nothing of the kind")?;
    std::fs::write(&file, "short")?;
    assert!(tls.reload().is_err());
    assert!(tokens.reload().is_err());
    std::fs::remove_file(&file)?;
    let said = tokens.reload().unwrap_err().to_string();
    assert!(said.contains("tokens"), "{said}");
    assert_eq!(trusting(&after.file).status(address, &new).await?, 200);
    for (name, count) in [
        ("kachet_gateway_certificate_reloads_total{outcome=\"done\"} ", 1),
        ("kachet_gateway_certificate_reloads_total{outcome=\"failed\"} ", 1),
        ("kachet_gateway_token_reloads_total{outcome=\"done\"} ", 1),
        ("kachet_gateway_token_reloads_total{outcome=\"failed\"} ", 2),
    ] {
        assert_eq!(figure(&gateway, name)?, count, "{name}");
    }
    Ok(())
}
