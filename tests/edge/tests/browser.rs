//! The page in a real Chromium, before the real gateway and a real Kafka.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kachet::cache::Cache;
use kachet::gateway::{CorsOrigins, Gateway, GatewaySettings};
use kachet::transport::{TcpSettings, TcpTransport};
use kachet_core::storage::MemoryStorage;
use kachet_core::time::MaxStaleness;
use kachet_edge_tests::{made, static_files};
use kachet_tests::chromium::Chromium;
use kachet_tests::kafka::{KafkaBroker, shared_kafka, writer_for};
use kachet_tests::records;
use kachet_tests::setup::or_skip;

const TOPIC: &str = "orders";

async fn gateway_before(broker: &KafkaBroker, origin: &str) -> Result<Gateway<TcpTransport, MemoryStorage>> {
    let cache = Cache::builder(TcpTransport::new(TcpSettings::default()))
        .size_limit_bytes(1 << 20)
        .max_staleness(MaxStaleness::Within(Duration::from_secs(1)));
    let mut settings = GatewaySettings::new(([127, 0, 0, 1], 0).into(), vec![broker.bootstrap().parse()?]);
    settings.cors_origins = CorsOrigins::new([origin])?;
    Ok(Gateway::start(settings, cache.build()).await?)
}

/// Where the variable names a folder, for people to look at.
fn keep_picture(browser: &mut Chromium, name: &str) -> Result<()> {
    if let Some(folder) = std::env::var_os("KACHET_SCREENSHOTS") {
        std::fs::write(
            Path::new(&folder).join(format!("{name}.png")),
            browser.screenshot()?,
        )?;
    }
    Ok(())
}

fn text_of(browser: &mut Chromium, id: &str) -> Result<String> {
    let text = browser.evaluate(&format!("document.getElementById('{id}').innerText"))?;
    Ok(text.as_str().context("no text")?.to_owned())
}

fn said(browser: &mut Chromium, beginning: &str) -> Result<()> {
    browser.wait_for(&format!(
        "document.getElementById('said')?.textContent.startsWith({beginning:?}) === true"
    ))
}

/// Types an offset and presses Enter.
fn read_at(browser: &mut Chromium, offset: &str) -> Result<()> {
    browser
        .evaluate("document.getElementById('offset').select(); document.getElementById('offset').focus()")?;
    browser.enter(offset)?;
    browser.press("Enter")
}

/// How often the page has asked for records.
fn fetches(browser: &mut Chromium) -> Result<i64> {
    let figure =
        "[...document.querySelectorAll('#figures dt')].find((dt) => dt.textContent === 'Asked upstream')";
    let told = browser.evaluate(&format!("Number({figure}.nextSibling.textContent)"))?;
    told.as_i64().context("no figure")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_record_its_batch_and_what_is_cached() -> Result<()> {
    let Some(example) = or_skip(made("npm/browser")) else {
        return Ok(());
    };
    let Some(broker) = shared_kafka() else {
        return Ok(());
    };
    let Some(mut writer) = writer_for(broker) else {
        return Ok(());
    };
    writer.command(&format!("create {TOPIC} 2"))?;
    for (seed, codec) in (1..).zip(["none", "zstd", "gzip", "lz4"]) {
        writer.command(&format!(
            "produce {TOPIC} 0 {codec} 600 40 {seed} headers size=400"
        ))?;
    }
    let page = static_files::serve(example)?;
    let gateway = gateway_before(broker, &format!("http://{page}")).await?;
    let address = gateway.address();
    let looked = tokio::task::spawn_blocking(move || look(page, address));
    let Some(mut browser) = looked.await?? else {
        return Ok(());
    };
    gateway.stop().await;
    let looked = tokio::task::spawn_blocking(move || without_gateway(&mut browser));
    looked.await?
}

fn look(page: SocketAddr, gateway: SocketAddr) -> Result<Option<Chromium>> {
    let Some(mut browser) = Chromium::start()? else {
        return Ok(None);
    };
    browser.look((1120, 900), false)?;
    browser.open(&format!("http://{page}/#gateway=http://{gateway}"))?;
    said(&mut browser, "Give a topic")?;
    keep_picture(&mut browser, "browser-empty")?;
    browser.evaluate(&format!("document.getElementById('topic').value = '{TOPIC}'"))?;
    read_at(&mut browser, "1203")?;
    said(&mut browser, "From the gateway")?;
    let record = text_of(&mut browser, "record")?;
    let (key, value) = (records::key(3, 3), records::value_of_size(3, 3, 400));
    ensure!(
        record.contains("1203") && record.contains(&key) && record.contains(&value),
        "{record}"
    );
    ensure!(record.contains("Header "), "{record}");
    let batch = text_of(&mut browser, "batch")?;
    ensure!(
        batch.contains("1200 – 1239") && batch.contains("gzip") && batch.contains("\n40\n"),
        "{batch}"
    );
    let runs = text_of(&mut browser, "runs")?;
    ensure!(runs.contains("of 2400 offsets (1200–"), "{runs}");
    assert_eq!(fetches(&mut browser)?, 1);

    // By the keyboard alone: the next record, out of the cache.
    browser.evaluate("document.getElementById('next').focus()")?;
    browser.press("Enter")?;
    said(&mut browser, "From the cache")?;
    ensure!(text_of(&mut browser, "record")?.contains(&records::key(3, 4)));
    assert_eq!(text_of(&mut browser, "source")?, "from the cache");
    assert_eq!(fetches(&mut browser)?, 1);

    // By the mouse: a place far to the left in the strip.
    let at = browser.evaluate(
        "(() => { const { left, top, width } = document.getElementById('strip').getBoundingClientRect();
          return [left + width / 10, top + 5]; })()",
    )?;
    for kind in ["mousePressed", "mouseReleased"] {
        let event =
            serde_json::json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
        browser.call("Input.dispatchMouseEvent", &event)?;
    }
    said(&mut browser, "From the gateway")?;
    let offset = browser.evaluate("Number(document.getElementById('offset').value)")?;
    let offset = offset.as_u64().context("no offset")?;
    ensure!((230..=250).contains(&offset), "{offset}");
    let spans = browser.evaluate("document.querySelectorAll('#strip .cached').length")?;
    assert_eq!(spans, 2);
    keep_picture(&mut browser, "browser-light")?;
    browser.look((1120, 900), true)?;
    keep_picture(&mut browser, "browser-dark")?;
    browser.look((390, 844), false)?;
    keep_picture(&mut browser, "browser-narrow")?;
    let overflows = browser.evaluate("document.documentElement.scrollWidth > innerWidth")?;
    assert_eq!(overflows, false);
    browser.look((1120, 900), false)?;

    check_errors(&mut browser)?;
    check_accessibility(&mut browser)?;
    let complaints = browser.complaints();
    // Chromium logs what a server answers with an error.
    let own: Vec<_> = complaints
        .iter()
        .filter(|said| !said.contains("Failed to load resource"))
        .collect();
    ensure!(own.is_empty(), "{own:?}");
    let elsewhere = |url: &String| !url.contains(&page.to_string()) && !url.contains(&gateway.to_string());
    ensure!(
        !browser.requests().iter().any(elsewhere),
        "{:?}",
        browser.requests()
    );
    Ok(Some(browser))
}

fn check_errors(browser: &mut Chromium) -> Result<()> {
    read_at(browser, "2400")?;
    said(browser, "The log ends at 2400")?;
    read_at(browser, "99999")?;
    said(browser, "Offset 99999 is out of range")?;
    browser.evaluate("document.getElementById('topic').value = 'orders-nothing'")?;
    read_at(browser, "5")?;
    said(browser, "The gateway says")?;
    browser.evaluate(&format!("document.getElementById('topic').value = '{TOPIC}'"))?;
    // What is no number is not sent.
    browser.evaluate("document.getElementById('partition').value = 'x'")?;
    read_at(browser, "5")?;
    assert_eq!(
        browser.evaluate("document.getElementById('place').matches(':invalid')")?,
        true
    );
    browser.evaluate("document.getElementById('partition').value = '0'")?;
    // The error has put in doubt what was cached, so it is fetched anew.
    read_at(browser, "1210")?;
    said(browser, "From the gateway")?;
    read_at(browser, "1215")?;
    said(browser, "From the cache")
}

fn check_accessibility(browser: &mut Chromium) -> Result<()> {
    let tree = browser.accessibility_tree()?;
    for (role, name) in [
        ("heading", "What is cached"),
        ("heading", "The record"),
        ("button", "Read"),
        ("slider", "Offset in the log"),
        ("status", ""),
    ] {
        let is_told = tree
            .iter()
            .any(|(known, called)| known == role && called.starts_with(name));
        ensure!(is_told, "no {role} {name} in {tree:?}");
    }
    for (role, name) in &tree {
        let is_control = ["button", "textbox", "combobox", "slider"].contains(&role.as_str());
        ensure!(
            !is_control || !name.is_empty(),
            "a {role} without a name in {tree:?}"
        );
    }
    Ok(())
}

fn without_gateway(browser: &mut Chromium) -> Result<()> {
    read_at(browser, "1211")?;
    said(browser, "From the cache")?;
    read_at(browser, "100")?;
    said(browser, "There is no answer from")?;
    browser.evaluate("document.getElementById('forget').click()")?;
    said(browser, "Nothing is cached any more")?;
    read_at(browser, "1211")?;
    said(browser, "There is no answer from")
}
