//! One run: a fleet loses its hub and reconnects.

use crate::client::{Answer, Ask, Client, End, Request};
use crate::dice::Dice;
use crate::ours::Ours;
use crate::service::{Dps, Hub, Model, Verdict};
use crate::wheel::Wheel;
use core::time::Duration;
use std::time::Instant;
use steadfast_core::ServiceKind;

/// Start of the outage, in virtual milliseconds: every device has been up for more than two minutes by then.
pub(crate) const LOSS: u32 = 150_000;

/// A fleet's scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scenario {
    pub(crate) devices: u32,
    /// Admissions per second.
    pub(crate) rate: f64,
    pub(crate) model: Model,
    /// Length of the hub's outage.
    pub(crate) outage_ms: u32,
    /// The devices detect the loss within this time.
    pub(crate) notice_ms: u32,
    /// Minimum and maximum time of an attempt, without the hub's queue.
    pub(crate) reply_ms: (u32, u32),
    /// Minimum and maximum time of an attempt while the hub is down.
    pub(crate) unreached_ms: (u32, u32),
    /// Part of the fleet that is hit.
    pub(crate) hit: f64,
    /// The hub drops everybody again at this interval, so many times.
    pub(crate) crashes: Option<(u32, u32)>,
    /// After the return a device's resolver still names the old address for up to this time.
    pub(crate) dns_ms: u32,
    /// Registrations per second of the provisioning service.
    pub(crate) dps_rate: Option<f64>,
    /// The fleet moves to another hub: the old one does not know the devices after the return.
    pub(crate) moved: bool,
    /// The run ends at this time after the return.
    pub(crate) horizon_ms: u32,
}

impl Scenario {
    /// Makes a plain outage of `outage_secs` with an ideal drain of `drain_secs`.
    pub(crate) fn outage(devices: u32, drain_secs: f64, outage_secs: f64, model: Model) -> Self {
        Self {
            devices,
            rate: f64::from(devices) / drain_secs,
            model,
            outage_ms: (outage_secs * 1_000.0) as u32,
            notice_ms: 500,
            reply_ms: (150, 450),
            unreached_ms: (1_000, 3_000),
            hit: 1.0,
            crashes: None,
            dns_ms: 0,
            dps_rate: None,
            moved: false,
            horizon_ms: (drain_secs * 10_000.0) as u32,
        }
    }

    /// Returns the ideal drain time in seconds: that of the affected devices at the full rate.
    pub(crate) fn ideal_secs(&self) -> f64 {
        f64::from(self.devices) * self.hit / self.rate
    }

    /// Returns when the hub is back.
    pub(crate) const fn back(&self) -> u32 {
        LOSS + self.outage_ms
    }

    /// Returns when the hub next drops everybody, after `now`.
    fn next_crash(&self, now: u32) -> Option<u32> {
        let (interval, times) = self.crashes?;
        let past = now.saturating_sub(self.back()) / interval + 1;
        (now >= self.back() && past <= times).then(|| self.back() + past * interval)
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Devices hit.
    pub(crate) hit: u32,
    /// Milliseconds from the return of the hub until each device was back permanently, sorted.
    pub(crate) back_ms: Vec<u32>,
    /// Attempts at the hub after its return, of each device hit, sorted.
    pub(crate) attempts: Vec<u16>,
    /// Attempts from the loss to the return, in all.
    pub(crate) attempts_during: u64,
    /// Arrivals at the hub in each second from the loss on.
    pub(crate) arrivals: Vec<u32>,
    /// Devices back permanently in each second from the loss on.
    pub(crate) returns: Vec<u32>,
    /// Registrations accepted and refused by the provisioning service.
    pub(crate) registrations: (u64, u64),
    /// Events handled.
    pub(crate) events: u64,
    /// Second, counted from the loss, in which the hub was back.
    pub(crate) back_second: usize,
    /// Duration of the run: processor time if the system reports it, else wall-clock time.
    pub(crate) took: Duration,
}

impl Outcome {
    /// Returns the seconds from the return of the hub until this fraction of the affected devices was back, if it ever
    /// was.
    pub(crate) fn back_secs(&self, share: f64) -> Option<f64> {
        let rank = ((f64::from(self.hit) * share).ceil() as usize).max(1);
        self.back_ms.get(rank - 1).map(|ms| f64::from(*ms) / 1_000.0)
    }

    /// Returns the share of the hit devices that came back.
    pub(crate) fn returned(&self) -> f64 {
        self.back_ms.len() as f64 / f64::from(self.hit.max(1))
    }

    pub(crate) fn mean_attempts(&self) -> f64 {
        let sum: u64 = self.attempts.iter().map(|attempts| u64::from(*attempts)).sum();
        sum as f64 / self.attempts.len().max(1) as f64
    }

    pub(crate) fn attempts_quantile(&self, share: f64) -> u16 {
        let rank = ((self.attempts.len() as f64 * share).ceil() as usize).max(1);
        self.attempts.get(rank - 1).copied().unwrap_or(0)
    }

    /// Returns the most arrivals in a second after the return.
    pub(crate) fn peak(&self) -> u32 {
        self.busiest(1)
    }

    /// Returns the most arrivals in so many seconds in a row after the return.
    pub(crate) fn busiest(&self, row: usize) -> u32 {
        let after = self.arrivals.get(self.back_second..).unwrap_or_default();
        after.windows(row).map(|part| part.iter().sum()).max().unwrap_or(0)
    }

    /// Returns the mean seconds from the return of the hub to a device's return.
    pub(crate) fn mean_back_secs(&self) -> f64 {
        let sum: u64 = self.back_ms.iter().map(|ms| u64::from(*ms)).sum();
        sum as f64 / self.back_ms.len().max(1) as f64 / 1_000.0
    }
}

/// A device's pending event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Deadline,
    Loss,
    Unreachable,
    Closed,
    Unknown,
    Accepted,
    Answer(Answer),
}

/// The run's state of a device, beside its client.
#[derive(Clone, Copy, Debug)]
struct Slot {
    pending: Pending,
    up: bool,
    /// Counted as back permanently.
    back: bool,
    hit: bool,
    /// The hub it is assigned to.
    hub: u8,
    attempts: u16,
}

/// The whole simulated world.
struct World<'s, C> {
    scenario: &'s Scenario,
    dice: Dice,
    wheel: Wheel,
    clients: Vec<C>,
    slots: Vec<Slot>,
    hub: Hub,
    dps: Option<Dps>,
    out: u32,
    outcome: Outcome,
}

/// Runs a scenario with the devices that `make` returns; `watch` is called from time to time with how many of how many
/// are back.
pub(crate) fn run<C: Client>(
    scenario: &Scenario,
    seed: u64,
    mut make: impl FnMut(&mut Dice) -> C,
    watch: &mut dyn FnMut(u32, u32),
) -> Outcome {
    let (begun, processor) = (Instant::now(), processor_time());
    let mut dice = Dice::new(seed);
    let clients: Vec<C> = (0..scenario.devices).map(|_| make(&mut dice)).collect();
    let slot = Slot { pending: Pending::Loss, up: true, back: true, hit: false, hub: 0, attempts: 0 };
    let mut world = World {
        scenario,
        wheel: Wheel::new(clients.len(), LOSS),
        slots: vec![slot; clients.len()],
        clients,
        hub: Hub::new(scenario.model, scenario.rate, scenario.reply_ms, scenario.back()),
        dps: scenario.dps_rate.map(|rate| Dps::new(rate, LOSS)),
        dice,
        out: 0,
        outcome: Outcome { back_second: (scenario.outage_ms / 1_000) as usize, ..Outcome::default() },
    };
    world.hit();
    let end = scenario.back().saturating_add(scenario.horizon_ms);
    while let Some((now, device)) = world.wheel.pop() {
        if now > end {
            break;
        }
        world.outcome.events += 1;
        if world.outcome.events.is_multiple_of(1 << 18) {
            watch(world.outcome.hit - world.out, world.outcome.hit);
        }
        world.step(device, now);
    }
    watch(world.outcome.hit, world.outcome.hit);
    let outcome = world.conclude();
    let took = processor.and_then(|before| processor_time()?.checked_sub(before));
    Outcome { took: took.unwrap_or_else(|| begun.elapsed()), ..outcome }
}

/// Returns the time this thread has spent on the processor, as Linux counts it.
fn processor_time() -> Option<Duration> {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(counts.split(' ').next()?.parse().ok()?))
}

/// Returns the bytes per device: the real link, the run's state and its calendar entry.
pub(crate) const fn footprint() -> usize {
    Ours::size() + size_of::<Slot>() + Wheel::PER_DEVICE
}

impl<C: Client> World<'_, C> {
    /// Closes the connections of the affected devices.
    fn hit(&mut self) {
        for device in 0..self.scenario.devices {
            if self.scenario.hit >= 1.0 || self.dice.share() < self.scenario.hit {
                let slot = &mut self.slots[device as usize];
                slot.hit = true;
                slot.back = false;
                self.out += 1;
                let at = LOSS + self.dice.between(0, self.scenario.notice_ms);
                self.wheel.plan(device, at);
            }
        }
        self.outcome.hit = self.out;
    }

    fn step(&mut self, device: u32, now: u32) {
        let client = &mut self.clients[device as usize];
        let dice = &mut self.dice;
        let ask = match self.slots[device as usize].pending {
            Pending::Deadline => client.wake(now, dice),
            // A loss detected that late is detected by the keep-alive.
            Pending::Loss if self.scenario.notice_ms > 10_000 => client.end(End::Silent, now, dice),
            Pending::Loss | Pending::Closed => client.end(End::Closed, now, dice),
            Pending::Unreachable => client.end(End::Unreachable, now, dice),
            Pending::Unknown => client.end(End::Unknown, now, dice),
            Pending::Accepted => client.accept(now, dice),
            Pending::Answer(answer) => {
                if let Answer::Assigned(hub) = answer {
                    self.slots[device as usize].hub = hub;
                }
                client.answer(answer, now, dice)
            }
        };
        self.obey(device, ask, now);
    }

    /// Executes a device's step, and schedules its next event.
    fn obey(&mut self, device: u32, ask: Ask, now: u32) {
        let slot = &mut self.slots[device as usize];
        if slot.up && (ask.down || ask.connect.is_some()) {
            slot.up = false;
            if slot.back {
                slot.back = false;
                self.out += 1;
            }
        }
        if ask.up {
            slot.up = true;
        }
        let mut next = ask.deadline.map(|at| (at, Pending::Deadline));
        let mut offer = |at: u32, pending: Pending| {
            if next.is_none_or(|(deadline, _)| at <= deadline) {
                next = Some((at, pending));
            }
        };
        if let Some(role) = ask.connect {
            let verdict = self.verdict(device, role, now);
            match verdict {
                Verdict::Silent => {}
                Verdict::Unreachable(after) => offer(now + after, Pending::Unreachable),
                Verdict::Refused(after) => offer(now + after, Pending::Closed),
                Verdict::Accepted(after) => {
                    let patience = self.clients[device as usize].ready(now);
                    next = patience.map(|at| (at, Pending::Deadline));
                    let moved = self.scenario.moved && role == ServiceKind::Hub && self.slots[device as usize].hub == 0;
                    let pending = if moved { Pending::Unknown } else { Pending::Accepted };
                    if next.is_none_or(|(deadline, _)| now + after <= deadline) {
                        next = Some((now + after, pending));
                    }
                }
            }
        } else if let Some(request) = ask.request {
            let taken = match (request, &mut self.dps) {
                (Request::Register, Some(dps)) => dps.register(now),
                (Request::Poll, _) | (_, None) => true,
            };
            let answer = match request {
                _ if !taken => Answer::Throttled,
                Request::Register => Answer::Assigning,
                Request::Poll => Answer::Assigned(u8::from(self.scenario.moved)),
            };
            let after = self.dice.between(50, 200);
            offer(now + after, Pending::Answer(answer));
        }
        let slot = &mut self.slots[device as usize];
        if slot.up {
            let crash = self.scenario.next_crash(now);
            if let Some(at) = crash {
                let at = at + self.dice.between(0, self.scenario.notice_ms);
                if next.is_none_or(|(deadline, _)| at <= deadline) {
                    next = Some((at, Pending::Loss));
                }
            } else if ask.up {
                self.came_back(device, now);
                return;
            }
        }
        let slot = &mut self.slots[device as usize];
        if let Some((at, pending)) = next {
            slot.pending = pending;
            self.wheel.plan(device, at);
        }
    }

    /// The device is up and has no further event.
    fn came_back(&mut self, device: u32, now: u32) {
        let slot = &mut self.slots[device as usize];
        if !slot.back {
            slot.back = true;
            self.out -= 1;
            let after = now.saturating_sub(self.scenario.back());
            self.outcome.back_ms.push(after);
            count(&mut self.outcome.returns, now);
        }
    }

    /// Decides on a connection attempt.
    fn verdict(&mut self, device: u32, role: ServiceKind, now: u32) -> Verdict {
        let back = self.scenario.back();
        if role == ServiceKind::Provisioning {
            return Verdict::Accepted(self.dice.span(self.scenario.reply_ms));
        }
        let slot = &mut self.slots[device as usize];
        if now < back {
            self.outcome.attempts_during += 1;
            return Verdict::Unreachable(self.dice.span(self.scenario.unreached_ms));
        }
        slot.attempts = slot.attempts.saturating_add(1);
        if self.scenario.dns_ms > 0 {
            // The same for every attempt of a device: its resolver's record expires once.
            let expires = Dice::new(u64::from(device)).between(0, self.scenario.dns_ms);
            if now - back < expires {
                return Verdict::Unreachable(self.dice.span(self.scenario.unreached_ms));
            }
        }
        count(&mut self.outcome.arrivals, now);
        if self.scenario.moved && slot.hub == 0 {
            return Verdict::Accepted(self.dice.span(self.scenario.reply_ms));
        }
        self.hub.arrive(now, &mut self.dice)
    }

    fn conclude(mut self) -> Outcome {
        let hit = self.slots.iter().filter(|slot| slot.hit);
        self.outcome.attempts = hit.map(|slot| slot.attempts).collect();
        self.outcome.attempts.sort_unstable();
        self.outcome.back_ms.sort_unstable();
        self.outcome.registrations = self.dps.map_or((0, 0), |dps| (dps.taken, dps.refused));
        self.outcome
    }
}

/// Adds one to the second of `now`.
fn count(seconds: &mut Vec<u32>, now: u32) {
    let second = (now.saturating_sub(LOSS) / 1_000) as usize;
    if seconds.len() <= second {
        seconds.resize(second + 1, 0);
    }
    seconds[second] += 1;
}
