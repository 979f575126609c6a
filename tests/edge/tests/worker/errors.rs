//! What cannot be answered is a problem with a code.

use anyhow::Result;
use kachet_tests::curl;

use crate::{Edge, TOKEN, gateway_before, set_up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_is_a_problem_with_the_gateways_code() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-errors";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 30 10 1"))?;
    writer.command(&format!("transaction abort {topic} 0 5 {topic}"))?;
    writer.command(&format!("delete-records {topic} 0 10"))?;
    let gateway = gateway_before(broker).await?;
    let edge = Edge::start(gateway.address(), &[])?;

    let here = |rest: &str| format!("/topics/{topic}/0{rest}");
    for (path, status, code) in [
        (here("/5"), 410, "below-log-start"),
        (here("/36"), 404, "beyond-end"),
        (here("/1000"), 404, "beyond-end"),
        (here("/35"), 404, "no-record-at-offset"),
        (here("/35/batch"), 404, "no-record-at-offset"),
        (here("/31?isolation=committed"), 404, "no-record-at-offset"),
        (here("/-1"), 400, "bad-parameter"),
        (here("/9223372036854775808"), 400, "bad-parameter"),
        (here("/20?isolation=none"), 400, "bad-parameter"),
        (here("/20?n=1"), 400, "bad-parameter"),
        (here("?offset=10&count=0"), 400, "bad-parameter"),
        (here("?offset=10&offset=11"), 400, "bad-parameter"),
        (here("?offset=5"), 410, "below-log-start"),
        (here(""), 400, "bad-parameter"),
        (here("/20/records"), 404, "no-such-resource"),
        (format!("/topics/{topic}/7/0"), 404, "no-such-partition"),
        ("/topics/edge-nothing/0/0".into(), 404, "no-such-topic"),
        ("/topics/a%20b/0/0".into(), 400, "bad-parameter"),
        ("/topics/%ff/0/0".into(), 400, "bad-parameter"),
        ("/".into(), 404, "no-such-resource"),
    ] {
        let (found, found_code, told) = edge.problem(&path, &[])?;
        assert_eq!((found, found_code.as_str()), (status, code), "{path}: {told}");
    }
    let (_, _, told) = edge.problem(&here("/5"), &[])?;
    assert_eq!(
        (&told["log_start_offset"], &told["end_offset"]),
        (&10.into(), &36.into()),
        "{told}"
    );
    let (_, _, told) = edge.problem(&here("/31?isolation=committed"), &[])?;
    assert_eq!(told["next_offset"], 35, "{told}");

    let (status, code, _) = edge.problem(&here("/20"), &["--request", "DELETE"])?;
    assert_eq!((status, code.as_str()), (405, "method-not-allowed"));
    let too_many = vec![serde_json::json!({ "topic": topic, "partition": 0, "offset": 10 }); 101];
    let too_many = serde_json::to_string(&too_many)?;
    let too_long = " ".repeat(65 << 10);
    for (body, status) in [
        ("", 400),
        ("{}", 400),
        ("[]", 400),
        ("[null]", 400),
        (&too_many, 400),
        (&too_long, 413),
    ] {
        let answer = curl::ask(&["--data-binary", "@-", &edge.url("/records")], body.as_bytes())?;
        assert_eq!(answer.status, status, "{body:.20}");
    }
    // And it is as well as before.
    assert_eq!(edge.lines(&here("/20"))?.0[0]["offset"], 20);
    assert!(!edge.workerd.log().contains("rror:"), "{}", edge.workerd.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_created_again_is_read_anew() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-again";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 5 5 1"))?;
    let gateway = gateway_before(broker).await?;
    // The name's id is asked for once, for all of this test.
    let edge = Edge::start(gateway.address(), &[("MAX_STALENESS_MS", "3600000")])?;
    assert_eq!(
        edge.lines(&format!("/topics/{topic}/0/3"))?.0[0]["key"],
        "key-1-3"
    );
    writer.command(&format!("delete {topic}"))?;
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 9 9 2"))?;
    // Cached, and within the bound.
    let (cached, hit) = edge.lines(&format!("/topics/{topic}/0/3"))?;
    assert_eq!((&cached[0]["key"], hit), (&"key-1-3".into(), true));
    // Not cached: by asking for the id that is gone, it finds the new one.
    assert_eq!(
        edge.lines(&format!("/topics/{topic}/0/7"))?.0[0]["key"],
        "key-2-7"
    );
    assert_eq!(
        edge.lines(&format!("/topics/{topic}/0/3"))?.0[0]["key"],
        "key-2-3"
    );
    // Nothing is held of what is gone.
    assert_eq!(edge.figure("partitions")?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_asked_for_and_shown() -> Result<()> {
    let Some((broker, mut writer)) = set_up() else {
        return Ok(());
    };
    let topic = "edge-tokens";
    writer.command(&format!("create {topic} 1"))?;
    writer.command(&format!("produce {topic} 0 none 5 5 1"))?;
    let gateway = gateway_before(broker).await?;
    let edge = Edge::start(gateway.address(), &[("CLIENT_TOKEN", "a-token-of-clients")])?;
    let path = format!("/topics/{topic}/0/3");
    for wrong in [
        &[][..],
        &["--oauth2-bearer", "a-token-of-client"],
        &["--oauth2-bearer", TOKEN],
    ] {
        let (status, code, _) = edge.problem(&path, wrong)?;
        assert_eq!((status, code.as_str()), (401, "unauthorised"));
    }
    assert_eq!(
        edge.ask(&path, &["--oauth2-bearer", "a-token-of-clients"])?
            .status,
        200
    );

    let refused = Edge::start(
        gateway.address(),
        &[("GATEWAY_TOKEN", "another-token-of-the-gateway")],
    )?;
    let (status, code, told) = refused.problem(&path, &[])?;
    assert_eq!((status, code.as_str()), (502, "upstream-refuses"));
    for text in [told.to_string(), refused.workerd.log()] {
        assert!(!text.contains("another-token"), "{text}");
    }
    Ok(())
}
