//! Who may read.

use anyhow::Result;
use bytes::Bytes;
use hyper::Method;
use kachet::gateway::{BearerTokens, CorsOrigins, GatewayError, GatewaySettings};

use crate::client::Client;
use crate::{MINUTE, broker_with, gateway_before, settings, start};

const PATH: &str = "/v1/topics/orders/0/records/1";
const TOKEN: &str = "correct-horse-battery-staple";

#[tokio::test]
async fn without_a_token_there_is_nothing_to_be_had() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let settings = GatewaySettings {
        bearer_tokens: Some(BearerTokens::new(TOKEN)?),
        ..settings(broker.address())
    };
    let gateway = start(settings, MINUTE).await?;
    let mut client = Client::to(gateway.address()).await?;
    let wrong = format!("Bearer {TOKEN}x");
    for (headers, said) in [
        (vec![], "Bearer realm=\"kachet\""),
        (vec![("authorization", "Basic Og==")], "Bearer realm=\"kachet\""),
        (
            vec![("authorization", wrong.as_str())],
            "Bearer realm=\"kachet\", error=\"invalid_token\"",
        ),
    ] {
        for path in [PATH, "/v1/topics", "/elsewhere", "/v1/fetch"] {
            let refused = client.get_with(path, &headers).await?;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (401, "unauthorised"),
                "{path}"
            );
            assert_eq!(refused.header("www-authenticate"), said);
        }
    }
    assert_eq!(broker.requests().fetch, 0);
    let right = format!("Bearer {TOKEN}");
    let headers = [("authorization", right.as_str()), ("host", "cache.example.org")];
    assert_eq!(client.get_with(PATH, &headers).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn an_address_for_others_takes_a_token_or_a_word_that_everybody_may_read() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let open = GatewaySettings {
        listen: ([0, 0, 0, 0], 0).into(),
        ..settings(broker.address())
    };
    let refused = start(open.clone(), MINUTE).await.err().unwrap();
    assert!(matches!(
        refused.downcast_ref(),
        Some(GatewayError::Anonymous { address }) if address.port() == 0
    ));
    let everybody = GatewaySettings {
        allows_anonymous: true,
        ..open
    };
    let gateway = start(everybody, MINUTE).await?;
    let mut client = Client::to(([127, 0, 0, 1], gateway.address().port()).into()).await?;
    let named = [("host", "cache.example.org")];
    assert_eq!(client.get_with(PATH, &named).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_page_that_leads_its_own_name_to_this_machine_is_turned_away() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let gateway = gateway_before(&broker).await?;
    let mut client = Client::to(gateway.address()).await?;
    for host in ["evil.example", "evil.example:8080"] {
        let refused = client.get_with(PATH, &[("host", host)]).await?;
        assert_eq!((refused.status, refused.code().as_str()), (421, "wrong-host"));
    }
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
        assert_eq!(
            client.get_with(PATH, &[("host", host)]).await?.status,
            200,
            "{host}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn pages_read_where_the_settings_say_so() -> Result<()> {
    let (broker, _) = broker_with(1).await?;
    let page = [("origin", "https://app.example.org")];
    let silent = gateway_before(&broker).await?;
    let answer = Client::to(silent.address()).await?.get_with(PATH, &page).await?;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, "")
    );
    let settings = GatewaySettings {
        cors_origins: CorsOrigins::new(["https://app.example.org", "http://localhost:3000"])?,
        bearer_tokens: Some(BearerTokens::new(TOKEN)?),
        ..settings(broker.address())
    };
    let gateway = start(settings, MINUTE).await?;
    let mut client = Client::to(gateway.address()).await?;
    let right = format!("Bearer {TOKEN}");
    let answer = client
        .get_with(PATH, &[page[0], ("authorization", &right)])
        .await?;
    assert_eq!(answer.header("access-control-allow-origin"), page[0].1);
    let exposed = answer.header("access-control-expose-headers");
    assert!(
        exposed.contains("etag") && exposed.contains("kachet-offset"),
        "{exposed}"
    );
    let vary: Vec<_> = answer
        .headers
        .get_all("vary")
        .iter()
        .map(|line| line.to_str().unwrap())
        .collect();
    let vary = vary.join(",");
    assert!(vary.contains("accept") && vary.contains("origin"), "{vary}");
    // What goes wrong is for the page to read, too; another's page reads nothing.
    let refused = client.get_with(PATH, &page).await?;
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (401, page[0].1)
    );
    let other = client
        .get_with(PATH, &[("origin", "https://evil.example")])
        .await?;
    assert_eq!(other.header("access-control-allow-origin"), "");
    // Browsers ask before they send a token, and without it.
    let asked = [
        page[0],
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let preflight = client
        .ask(Method::OPTIONS, "/v1/fetch", &asked, Bytes::new())
        .await?;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), page[0].1);
    assert!(preflight.header("access-control-allow-methods").contains("POST"));
    assert!(
        preflight
            .header("access-control-allow-headers")
            .contains("authorization")
    );
    Ok(())
}
