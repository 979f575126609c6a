//! A component of the cache's own world that nobody should have let in.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use kachet_wasm_tests::{Limits, Plugin, Range, Runtime, settings};
use wasmtime::component::Component;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::{NAME, counting, frame, plugin, set_up, topic};

/// What `fetch` does, as the size limit names it.
mod deed {
    pub(super) const ANSWER: u64 = 0;
    pub(super) const SPIN: u64 = 1;
    pub(super) const TRAP_BEHIND_UPSTREAM: u64 = 2;
    pub(super) const GIVE_ALL_MEMORY: u64 = 3;
    pub(super) const GIVE_NO_VARIANT: u64 = 4;
    pub(super) const GIVE_WHAT_IS_NOT_THERE: u64 = 5;
    pub(super) const GIVE_NO_UTF8: u64 = 6;
    pub(super) const RECURSE: u64 = 7;
    pub(super) const FLOOD_UPSTREAM: u64 = 8;
}

/// Its answers lie at 0, from `answer` on; what upstream says lands at 4096.
const MODULE: &str = r#"(module
    (import "[export]kachet:cache/cache@0.1.0" "[resource-new]store" (func $new (param i32) (result i32)))
    (import "kachet:cache/host@0.1.0" "upstream" (func $upstream (param i32 i32 i32)))
    (memory (export "memory") 2)
    (global $deed (mut i64) (i64.const 0))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (func (export "kachet:cache/cache@0.1.0#[constructor]store")
        (param $deed i64) (param i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32)
        (global.set $deed (local.get $deed))
        (call $new (i32.const 1)))
    (func $is (param $deed i64) (result i32) (i64.eq (global.get $deed) (local.get $deed)))
    ;; A variant and, four bytes behind it, a place and a length.
    (func $answer (param $variant i32) (param $place i32) (param $length i32) (result i32)
        (i32.store (i32.const 0) (local.get $variant))
        (i32.store (i32.const 4) (local.get $place))
        (i32.store (i32.const 8) (local.get $length))
        (i64.store (i32.const 12) (i64.const 0))
        (i32.const 0))
    (func $take_all_memory
        (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))))
    (func $recurse (param i32) (result i32)
        (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
    (func $ask_upstream (call $upstream (i32.const 64) (i32.const 8) (i32.const 128)))
    (func (export "kachet:cache/cache@0.1.0#[method]store.fetch") (param i32 i32 i32) (result i32)
        (if (call $is (i64.const 1)) (then (loop $again (br $again))))
        (if (call $is (i64.const 2)) (then (call $ask_upstream) (unreachable)))
        (if (call $is (i64.const 3)) (then
            (call $take_all_memory)
            (return (call $answer (i32.const 0) (i32.const 0) (i32.mul (memory.size) (i32.const 65536))))))
        (if (call $is (i64.const 4)) (then (return (call $answer (i32.const 77) (i32.const 0) (i32.const 0)))))
        (if (call $is (i64.const 5)) (then (return (call $answer (i32.const 0) (i32.const 65536) (i32.const 2147483647)))))
        (if (call $is (i64.const 6)) (then
            (i32.store8 (i32.const 256) (i32.const 255))
            (return (call $answer (i32.const 1) (i32.const 256) (i32.const 1)))))
        (if (call $is (i64.const 7)) (then (return (call $recurse (i32.const 0)))))
        (if (call $is (i64.const 8)) (then (loop $again (call $ask_upstream) (br $again))))
        (call $answer (i32.const 0) (i32.const 256) (i32.const 5)))
    ;; A thousand records, the value of each the same 32 MiB.
    (func (export "kachet:cache/cache@0.1.0#[method]store.records")
        (param i32 i64 i64 i32 i64 i32 i32 i32) (result i32) (local $at i32)
        (drop (memory.grow (i32.const 512)))
        (local.set $at (i32.const 8192))
        (loop $again
            (i32.store8 offset=28 (local.get $at) (i32.const 1))
            (i32.store offset=36 (local.get $at) (i32.const 33554432))
            (local.set $at (i32.add (local.get $at) (i32.const 48)))
            (br_if $again (i32.lt_u (local.get $at) (i32.const 56192))))
        (i64.store (i32.const 0) (i64.const 0))
        (i32.store (i32.const 8) (i32.const 8192))
        (i32.store (i32.const 12) (i32.const 1000))
        (i64.store (i32.const 16) (i64.const 0))
        (i32.const 0))
    (func (export "kachet:cache/cache@0.1.0#[method]store.record") (param i32 i64 i64 i32 i64) (result i32) (unreachable))
    (func (export "kachet:cache/cache@0.1.0#[method]store.batch") (param i32 i64 i64 i32 i64) (result i32) (unreachable))
    (func (export "kachet:cache/cache@0.1.0#[method]store.stats") (param i32) (result i32) (unreachable))
    (func (export "kachet:cache/cache@0.1.0#[method]store.invalidate") (param i32 i32 i64 i64 i32 i32) (unreachable))
    (func (export "kachet:cache/cache@0.1.0#[method]store.snapshot") (param i32) (result i32) (unreachable))
    (func (export "kachet:cache/cache@0.1.0#[method]store.restore") (param i32 i32 i32) (result i32) (unreachable)))"#;

fn hostile(runtime: &Runtime) -> Result<Component> {
    let mut resolve = Resolve::default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../host-wasm/wit");
    let (package, _) = resolve.push_dir(folder)?;
    let world = resolve.select_world(&[package], Some("kachet"))?;
    let mut module = wat::parse_str(MODULE)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)?
        .encode()?;
    runtime.compile(component)
}

/// Little of everything, so that nothing takes long.
const LIMITS: Limits = Limits {
    memory_bytes: 40 << 20,
    fuel: 50_000_000,
    time: Duration::from_secs(20),
    answer_bytes: 16 << 20,
};

/// That its neighbours have seen nothing of it.
struct Neighbours {
    plugins: [Plugin; 2],
    record: String,
}

impl Neighbours {
    fn new(runtime: &Runtime, component: &Component) -> Result<Self> {
        let mut plugins = [plugin(runtime, component), plugin(runtime, component)];
        let record = format!("{:?}", plugins[0].record(topic(), 0, 0)?.unwrap());
        Ok(Self { plugins, record })
    }

    fn are_well(&mut self, after: &str) -> Result<()> {
        for plugin in &mut self.plugins {
            let record = plugin.record(topic(), 0, 0)?.unwrap();
            assert_eq!(format!("{record:?}"), self.record, "after {after}");
        }
        Ok(())
    }
}

#[test]
fn whatever_a_component_of_the_world_does_ends_its_own_call_and_no_other() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    let hostile = hostile(runtime)?;
    let mut neighbours = Neighbours::new(runtime, component)?;
    let request = frame(NAME, "request");
    for (does, words) in [
        (deed::SPIN, "all fuel consumed"),
        (deed::TRAP_BEHIND_UPSTREAM, "unreachable"),
        (
            deed::GIVE_ALL_MEMORY,
            "fuel allocated for hostcalls has been exhausted",
        ),
        (deed::GIVE_NO_VARIANT, "discriminant"),
        (deed::GIVE_WHAT_IS_NOT_THERE, "out of bounds"),
        (deed::GIVE_NO_UTF8, "utf-8"),
        (deed::RECURSE, "call stack exhausted"),
    ] {
        let (upstream, asked) = counting();
        let mut plugin = runtime.plugin(&hostile, LIMITS, &settings(does), upstream)?;
        let ended = format!("{:#}", plugin.fetch(&request).err().context("it went well")?);
        assert!(ended.to_lowercase().contains(words), "{does}: {ended}");
        assert_eq!(
            asked.load(Ordering::Relaxed),
            u64::from(does == deed::TRAP_BEHIND_UPSTREAM)
        );
        neighbours.are_well(&ended)?;
    }
    // What its answer says is for whoever asked to judge: they are bytes, and no response.
    let mut plugin = runtime.plugin(&hostile, LIMITS, &settings(deed::ANSWER), counting().0)?;
    assert_eq!(plugin.fetch(&request)?.unwrap().len(), 5);
    Ok(())
}

#[test]
fn a_component_cannot_have_its_host_copy_the_same_memory_again_and_again() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    let mut neighbours = Neighbours::new(runtime, component)?;
    let hostile = hostile(runtime)?;
    let mut plugin = runtime.plugin(&hostile, LIMITS, &settings(deed::ANSWER), counting().0)?;
    let range = Range {
        topic: topic(),
        partition: 0,
        offset: 0,
        count_limit: 1,
        size_limit_bytes: 1,
        committed: false,
    };
    // 32 GiB, by what it says.
    let ended = format!("{:#}", plugin.records(range).err().context("it went well")?);
    assert!(
        ended.contains("fuel allocated for hostcalls has been exhausted"),
        "{ended}"
    );
    neighbours.are_well(&ended)
}

#[test]
fn a_component_that_floods_upstream_is_ended_by_its_time() -> Result<()> {
    let Some((runtime, component)) = set_up() else {
        return Ok(());
    };
    let mut neighbours = Neighbours::new(runtime, component)?;
    let (upstream, asked) = counting();
    let limits = Limits {
        fuel: u64::MAX,
        time: Duration::from_millis(50),
        ..LIMITS
    };
    let hostile = hostile(runtime)?;
    let mut plugin = runtime.plugin(&hostile, limits, &settings(deed::FLOOD_UPSTREAM), upstream)?;
    let ended = format!(
        "{:#}",
        plugin
            .fetch(&frame(NAME, "request"))
            .err()
            .context("it went well")?
    );
    assert!(ended.contains("interrupt"), "{ended}");
    let count = asked.load(Ordering::Relaxed);
    assert!(count > 0);
    neighbours.are_well(&ended)?;
    assert_eq!(asked.load(Ordering::Relaxed), count, "nothing of it goes on");
    Ok(())
}

#[test]
fn what_imports_more_than_its_world_has_is_not_let_in() -> Result<()> {
    let Some((runtime, _)) = set_up() else {
        return Ok(());
    };
    for import in [
        "wasi:filesystem/preopens@0.2.0",
        "wasi:sockets/tcp@0.2.0",
        "kachet:cache/secrets@0.1.0",
    ] {
        let text = format!(r#"(component (import "{import}" (instance (export "take" (func)))))"#);
        let component = runtime.compile(text)?;
        let refused = runtime.plugin(&component, LIMITS, &settings(0), counting().0);
        let refused = format!("{:#}", refused.err().context("it was let in")?);
        assert!(refused.contains(import), "{refused}");
    }
    Ok(())
}
