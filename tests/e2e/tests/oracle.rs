//! The oracle bites: each rule, broken on purpose, is found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use e2e::{Actor, DEVICE, HUB_A, Pipe, Scene, Sent, Verdict, policy, soon};
use hub_emulator::{Fault, Injection};

/// A life with one repetition, judged well.
async fn life() -> (Scene, Actor, Vec<Sent>) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(Pipe::Bytes);
    scene.emulator.hub(HUB_A).inject(Injection::once(Fault::DropAfterStoreBeforePuback).after(5));
    actor.send(10).await;
    actor.delivered().await;
    let sent = actor.outcomes().await;
    soon(actor.device.stop(Duration::from_secs(5))).await;
    (scene, actor, sent)
}

/// Why the oracle condemns this, if it does.
fn complaint(scene: &Scene, actor: &Actor, sent: &[Sent]) -> Option<String> {
    let verdict = catch_unwind(AssertUnwindSafe(|| Verdict::of(scene, actor, sent)));
    let panic = verdict.err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "no words".to_owned()))
}

#[tokio::test]
async fn each_rule_broken_on_purpose_is_found() {
    let (mut scene, mut actor, sent) = life().await;
    assert_eq!(complaint(&scene, &actor, &sent), None);

    let mut early = sent.clone();
    early[3].told = Duration::ZERO;
    assert!(complaint(&scene, &actor, &early).unwrap().contains("was told at"));

    let mut swapped = sent.clone();
    swapped.swap(2, 7);
    assert!(complaint(&scene, &actor, &swapped).unwrap().contains("reordered"));

    let mut lost = sent.clone();
    lost[4].id = "0123456789abcdef".to_owned();
    assert!(complaint(&scene, &actor, &lost).unwrap().contains("1 lost"));

    assert!(complaint(&scene, &actor, &sent[1..]).is_some(), "the books say ten");

    actor.window = 0;
    assert!(complaint(&scene, &actor, &sent).unwrap().contains("repetitions"));
    actor.window = 10;

    scene.secrets.push("pump-7".to_owned());
    assert!(complaint(&scene, &actor, &sent).unwrap().contains("a secret is in the log"));
}

#[tokio::test]
async fn attempts_in_a_hurry_are_found() {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).inject(Injection::times(Fault::CloseAfterConnack, 4));
    let mut hurry = policy();
    hurry.overload_jitter = Duration::from_millis(1);
    let mut actor = Actor::start(&scene, DEVICE, scene.device(Pipe::Bytes).retry(hurry), 10);
    actor.send(3).await;
    actor.delivered().await;
    let sent = actor.outcomes().await;
    soon(actor.device.stop(Duration::from_secs(5))).await;
    assert!(complaint(&scene, &actor, &sent).unwrap().contains("in a hurry"));
}
