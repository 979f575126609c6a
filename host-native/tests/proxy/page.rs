//! The status page in a real browser.

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use kachet::demo::broker::{EmbeddedBroker, NODE_ID};
use kachet::demo::records::{Events, Packing, pack};
use kachet::proxy::{Admin, Limits};
use kachet_core::wire::{FetchPartition, FetchRequest, FetchTopic, TaggedFields, TopicId, TopicRef};
use kachet_tests::chromium::Chromium;
use serde_json::Value;

use crate::client::Client;
use crate::{CachingProxy, TOPIC, append, broker_port, broker_with, proxy_before};

/// Fetches from these partitions, each from an offset.
fn fetch_by_id(topic_id: TopicId, partitions: &[(i32, i64)]) -> FetchRequest {
    let asked = partitions
        .iter()
        .map(|(index, offset)| FetchPartition::new(*index, *offset, 1 << 20));
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: TopicRef::Id(topic_id),
            partitions: asked.collect(),
            unknown_tags: TaggedFields::default(),
        }],
        ..FetchRequest::default()
    }
}

struct Watched {
    proxy: CachingProxy,
    admin: Admin,
    client: Client,
    topics: BTreeMap<String, TopicId>,
}

async fn watched(broker: &EmbeddedBroker) -> Result<Watched> {
    let proxy = proxy_before(broker.address(), 256 << 20, Limits::default()).await?;
    let admin = Admin::start_with_page(([127, 0, 0, 1], 0).into(), proxy.monitor()).await?;
    let mut client = Client::to(broker_port(&proxy, NODE_ID)).await;
    // By which the proxy hears what topics are called, too.
    let told = client.metadata(12).await.topics.into_iter();
    let named = told.filter_map(|topic| Some((topic.name?.to_string(), TopicId(*topic.topic_id.as_bytes()))));
    Ok(Watched {
        proxy,
        admin,
        client,
        topics: named.collect(),
    })
}

async fn with_browser<T: Send + 'static>(
    look: impl FnOnce(&mut Chromium) -> Result<T> + Send + 'static,
) -> Result<Option<T>> {
    let looked = tokio::task::spawn_blocking(move || -> Result<Option<T>> {
        let Some(mut browser) = Chromium::start()? else {
            return Ok(None);
        };
        look(&mut browser).map(Some)
    });
    looked.await.context("the browser's thread panicked")?
}

/// Where the variable names a folder, for people to look at.
fn keep_picture(browser: &mut Chromium, name: &str) -> Result<()> {
    if let Some(folder) = std::env::var_os("KACHET_SCREENSHOTS") {
        let path = std::path::Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, browser.screenshot()?)?;
    }
    Ok(())
}

fn text_of(browser: &mut Chromium, selector: &str) -> Result<String> {
    let text = browser.evaluate(&format!("document.querySelector('{selector}').textContent"))?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

const ROWS: &str = "document.querySelectorAll('#rows tr').length";

/// A name that is markup. Kafka does not let a topic be called so; a broker that lies may tell of it.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_happens_and_can_be_used_without_a_mouse() -> Result<()> {
    let broker = broker_with(3, 6).await?;
    broker.create_topic("payments", 1)?;
    let mut events = Events::new(2);
    let batch: Vec<_> = events.by_ref().take(10).collect();
    broker.append("payments", 0, pack(&batch, Packing::Lz4)?)?;
    let Watched {
        proxy,
        admin,
        mut client,
        topics,
    } = watched(&broker).await?;
    let orders = topics[TOPIC];
    client
        .fetch(13, &fetch_by_id(topics["payments"], &[(0, 0)]))
        .await;
    // The first of its six batches is left out.
    client.fetch(13, &fetch_by_id(orders, &[(0, 10)])).await;

    let origin = format!("http://{}/", admin.address());
    let at = origin.clone();
    let opened = with_browser(move |browser| {
        browser.open(&at)?;
        browser.wait_for(&format!("{ROWS} === 2"))?;
        browser.wait_for("document.getElementById('state').textContent === 'ready'")?;
        assert_eq!(text_of(browser, "#hit-ratio-note")?, "0 of 2 lookups");
        let names =
            browser.evaluate("[...document.querySelectorAll('#rows th')].map((th) => th.textContent)")?;
        assert_eq!(names, serde_json::json!(["orders", "payments"]));
        check_accessibility(browser)?;
        check_keyboard(browser)?;
        check_names_are_text(browser)
    });
    if opened.await?.is_none() {
        return Ok(());
    }

    // A second look, with fetches while it lasts.
    let at = origin.clone();
    let looked = with_browser(move |browser| {
        browser.open(&at)?;
        browser.wait_for(&format!("{ROWS} === 2"))?;
        browser.wait_for("document.getElementById('hit-ratio-note').textContent === '1 of 5 lookups'")?;
        browser.wait_for(&format!("{ROWS} === 3"))?;
        browser.wait_for("document.querySelector('#rows tr .strip').getAttribute('aria-label').startsWith('100 % cached, 1 range: 0–59')")?;
        let elsewhere: Vec<String> = browser
            .requests()
            .into_iter()
            .filter(|url| !url.starts_with(&at))
            .collect();
        assert_eq!(elsewhere, [""; 0], "asked elsewhere");
        assert_eq!(browser.complaints(), [""; 0]);
        // Nothing else may be asked for, whatever gets into the page.
        let elsewhere =
            browser.evaluate("fetch('http://127.0.0.1:1/').then(() => 'asked', (e) => String(e))")?;
        assert!(
            elsewhere.as_str().is_some_and(|said| said.contains("Failed")),
            "{elsewhere}"
        );
        assert!(
            browser
                .complaints()
                .iter()
                .any(|said| said.contains("Content Security Policy"))
        );
        Ok(())
    });
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        client.fetch(13, &fetch_by_id(orders, &[(0, 10)])).await;
        client.fetch(13, &fetch_by_id(orders, &[(0, 0)])).await;
        client.fetch(13, &fetch_by_id(orders, &[(1, 0)])).await;
    };
    let (looked, ()) = tokio::join!(looked, later);
    looked?;
    proxy.stop().await;
    Ok(())
}

/// What a screen reader has to go by.
fn check_accessibility(browser: &mut Chromium) -> Result<()> {
    let tree = browser.accessibility_tree()?;
    let has = |role: &str, name: &str| tree.iter().any(|(r, n)| r == role && n.contains(name));
    for (role, name) in [
        ("banner", ""),
        ("main", ""),
        ("contentinfo", ""),
        ("search", "Partitions"),
        ("navigation", "Pages of partitions"),
        ("region", "What is cached"),
        ("heading", "Kachet proxy"),
        ("table", "Cached offsets of each partition"),
        ("columnheader", "Share"),
        ("rowheader", "orders"),
        ("image", "83.3 % cached, 1 range: 10–59"),
        ("image", "100 % cached, 1 range: 0–9"),
        ("image", "Hit ratio"),
        ("meter", "Cache size against its limit"),
        ("searchbox", "Filter"),
        ("status", ""),
        ("button", "Pause updates"),
        ("link", "Skip to the partitions"),
    ] {
        assert!(has(role, name), "no {role} '{name}' in {tree:?}");
    }
    let nameless = tree.iter().filter(|(role, name)| {
        name.trim().is_empty()
            && ["button", "link", "searchbox", "combobox", "image"].contains(&role.as_str())
    });
    assert_eq!(nameless.count(), 0, "{tree:?}");
    Ok(())
}

fn check_keyboard(browser: &mut Chromium) -> Result<()> {
    let focused = "document.activeElement.id || document.activeElement.textContent.trim()";
    // Everything that can be used is reached, in the order in which it is read, and shows that it is.
    let mut reached = Vec::new();
    for _ in 0..9 {
        browser.press("Tab")?;
        reached.push(browser.evaluate(focused)?.as_str().unwrap_or_default().to_owned());
        let outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")?;
        assert_eq!(outline, "solid", "{reached:?}");
    }
    assert_eq!(
        reached,
        [
            "Skip to the partitions",
            "pause",
            "span",
            "filter",
            "limit",
            "Topic",
            "Share",
            "Offsets",
            "Metrics"
        ]
    );
    browser.evaluate("document.activeElement.blur()")?;
    browser.press("/")?;
    assert_eq!(browser.evaluate(focused)?, "filter");
    browser.enter("ORDERS/0")?;
    browser.wait_for(&format!("{ROWS} === 1"))?;
    assert_eq!(
        text_of(browser, "#found")?,
        "Partitions 1–1 of 1 that match, of 2"
    );
    browser.enter("x")?;
    browser.wait_for("!document.getElementById('empty').hidden")?;
    assert_eq!(text_of(browser, "#empty")?, "No partition is called so.");
    browser.evaluate("const box = document.getElementById('filter'); box.value = ''; box.dispatchEvent(new Event('input'))")?;
    browser.wait_for(&format!("{ROWS} === 2"))?;
    // By share, the least first, then the most.
    browser.evaluate("document.querySelector('[data-sort=cached]').focus()")?;
    for (first, direction) in [("orders", "ascending"), ("payments", "descending")] {
        browser.press("Enter")?;
        browser.wait_for(&format!(
            "document.querySelector('#rows th').textContent === {first:?}"
        ))?;
        let sorted = browser.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')")?;
        assert_eq!(sorted, direction);
    }
    Ok(())
}

/// Whatever brokers call their topics and themselves.
fn check_names_are_text(browser: &mut Chromium) -> Result<()> {
    let lie = format!(
        "(async () => {{
            document.getElementById('pause').click();
            const [coverage, status] = await Promise.all(['coverage', 'status'].map(async (of) => (await fetch('api/' + of)).json()));
            coverage.partitions[0].topic = status.cluster_id = {HOSTILE:?};
            showCoverage(coverage);
            showNow(status);
        }})()"
    );
    browser.evaluate(&lie)?;
    assert_eq!(text_of(browser, "#rows th")?, HOSTILE);
    assert!(text_of(browser, "#facts")?.contains(HOSTILE));
    let images = browser.evaluate("document.querySelectorAll('#rows img, #facts img').length")?;
    assert_eq!(images, 0);
    assert_eq!(browser.complaints(), [""; 0]);
    Ok(())
}

/// Where somebody wants pictures, there is to be something to be seen on them.
async fn some_traffic(client: &mut Client, topic_id: TopicId) {
    if std::env::var_os("KACHET_SCREENSHOTS").is_none() {
        return;
    }
    for round in 0..400_i32 {
        for step in 0..(20 + 15 * (round / 40 % 3)) {
            let index = (round * 7 + step * 13) % 3_000;
            client.fetch(13, &fetch_by_id(topic_id, &[(index, 0)])).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

const MANY: u16 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_partitions_can_be_looked_through() -> Result<()> {
    let broker = broker_with(MANY, 1).await?;
    let mut events = Events::new(3);
    let large: Vec<i32> = (0..i32::from(MANY)).step_by(97).collect();
    for partition in &large {
        for _ in 0..(partition % 7 + 4) {
            append(&broker, *partition, &mut events)?;
        }
    }
    let Watched {
        proxy,
        admin,
        mut client,
        topics,
    } = watched(&broker).await?;
    let topic_id = topics[TOPIC];
    // Of the large ones the first and the fourth batch.
    for (partition, offset) in large
        .iter()
        .flat_map(|partition| [(*partition, 0), (*partition, 35)])
    {
        let mut one = fetch_by_id(topic_id, &[(partition, offset)]);
        one.topics[0].partitions[0].partition_max_bytes = 1;
        client.fetch(13, &one).await;
    }
    let small = (0..i32::from(MANY)).filter(|partition| partition % 97 != 0);
    let small: Vec<(i32, i64)> = small.map(|partition| (partition, 0)).collect();
    for some in small.chunks(500) {
        client.fetch(13, &fetch_by_id(topic_id, some)).await;
    }
    assert_eq!(proxy.cache().statistics().partitions, u64::from(MANY));

    some_traffic(&mut client, topic_id).await;

    let at = format!("http://{}/", admin.address());
    with_browser(move |browser| {
        browser.look((1280, 900), false)?;
        let began = Instant::now();
        browser.open(&at)?;
        browser.wait_for(&format!("{ROWS} === 50"))?;
        let loaded = began.elapsed();
        assert_eq!(text_of(browser, "#found")?, "Partitions 1–50 of 10,000");
        assert_eq!(text_of(browser, "#page")?, "Page 1 of 200");
        let elements = browser.evaluate("document.querySelectorAll('*').length")?.as_u64().unwrap_or(u64::MAX);
        assert!(elements < 3_000, "{elements}");
        // How much one poll moves, and how long the page is busy with it.
        let sizes = browser.evaluate("Promise.all(['api/coverage?buckets=120', 'api/status'].map(async (path) => (await (await fetch(path)).text()).length))")?;
        let took = browser.evaluate("(async () => { const began = performance.now(); await fetch('api/coverage?buckets=120').then((a) => a.json()).then(showCoverage); return performance.now() - began; })()")?;
        let began = Instant::now();
        browser.evaluate("document.getElementById('filter').focus()")?;
        browser.enter("orders/9876")?;
        browser.wait_for(&format!("{ROWS} === 1"))?;
        let filtered = began.elapsed();
        println!("10 000 partitions: loaded in {loaded:?}, filtered in {filtered:?}, a poll is {sizes} bytes and takes {took} ms, {elements} elements");
        assert!(sizes[0].as_u64().is_some_and(|size| size < 64 << 10), "{sizes}");
        assert!(sizes[1].as_u64().is_some_and(|size| size < 64 << 10), "{sizes}");
        assert!(took.as_f64().is_some_and(|took| took < 2_000.0), "{took}");
        assert!(loaded < Duration::from_secs(20) && filtered < Duration::from_secs(10));
        browser.evaluate("const box = document.getElementById('filter'); box.value = ''; box.dispatchEvent(new Event('input')); box.blur()")?;
        browser.wait_for(&format!("{ROWS} === 50"))?;
        for (click, page) in [("#last", 200), ("#previous", 199), ("#first", 1)] {
            browser.evaluate(&format!("document.querySelector('{click}').click()"))?;
            browser.wait_for(&format!("document.getElementById('page').textContent === 'Page {page} of 200'"))?;
        }
        for _ in 0..2 {
            browser.evaluate("document.querySelector('[data-sort=size]').click()")?;
        }
        browser.wait_for("document.querySelector('#rows .strip').getAttribute('aria-label').includes('2 ranges: 0–9, 30–39')")?;
        for (name, size, is_dark) in [
            ("wide-light", (1280, 960), false),
            ("wide-dark", (1280, 960), true),
            ("narrow-light", (390, 2600), false),
            ("narrow-dark", (390, 2600), true),
        ] {
            browser.look(size, is_dark)?;
            keep_picture(browser, name)?;
            let overflow = browser.evaluate("['html', '.scroll'].map((each) => document.querySelector(each)).reduce((over, each) => over + each.scrollWidth - each.clientWidth, 0)")?;
            assert_eq!(overflow, Value::from(0), "{name}: the page is wider than the window");
        }
        assert_eq!(browser.complaints(), [""; 0]);
        Ok(())
    })
    .await?;
    Ok(())
}
