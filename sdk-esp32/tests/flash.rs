//! The flash outbox keeps its promises over every possible power cut.
#![cfg(feature = "flash")]
#![expect(clippy::unwrap_used, reason = "a failure of what a test sets up fails the test")]

#[path = "support/nor.rs"]
mod nor;

use nor::{Nor, PAGE, PowerOff, TEARS, Tear};
use steadfast_core::{Destination, Entry, Instant, MessageId, Outbox, OutboxError, Outcome, Priority, RamOutbox};
use steadfast_esp32::flash::{FlashOutbox, OpenError};

const SLOTS: usize = 4;
const BYTES: usize = 160;
type Flash<'b, 'f> = FlashOutbox<'b, &'f mut Nor, SLOTS, BYTES>;

/// A message as the tests make it: everything follows from its number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    id: u64,
    telemetry: bool,
    text: String,
    properties: Vec<u8>,
    payload: Vec<u8>,
}

impl Owned {
    fn of(id: u64) -> Self {
        let number = id & !Priority::Normal.first_id().get();
        let len = usize::try_from(number * 7 % 53).unwrap();
        let payload = (0..len).map(|at| u8::try_from((at as u64 * 31 + number) % 256).unwrap()).collect();
        let properties = vec![0x5a; usize::try_from(if number.is_multiple_of(5) { number % 7 } else { 0 }).unwrap()];
        let text = format!("t{}={number}", number % 5);
        Self { id, telemetry: !number.is_multiple_of(3), text, properties, payload }
    }

    fn entry(&self) -> Entry<'_> {
        let destination =
            if self.telemetry { Destination::Telemetry(&self.text) } else { Destination::Topic(&self.text) };
        let created_unix_ms = self.id.is_multiple_of(4).then_some(1_780_000_000_000 + self.id % 1000);
        let retain = self.id.is_multiple_of(6);
        let entry = Entry::new(MessageId::new(self.id), destination, &self.payload);
        Entry { properties: &self.properties, retain, created_unix_ms, ..entry }
    }
}

/// What the script does next, by the step's number: it fills, removes out of order, drains, and fills again.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push(Priority),
    /// Removes the n-th of what is there, if there are so many.
    Remove(usize),
}

fn script(steps: usize) -> impl Iterator<Item = Step> {
    (0..steps).map(|at| match at % 24 {
        0..=4 | 6 | 11 | 15 | 16 => Step::Push(Priority::Normal),
        5 | 10 | 17 => Step::Push(Priority::Urgent),
        8 | 13 => Step::Remove(2),
        19 => Step::Remove(1),
        _ => Step::Remove(0),
    })
}

/// What must be there after a power cut.
#[derive(Clone, Debug)]
struct Expected {
    /// In order.
    ids: Vec<u64>,
    /// A message whose push was interrupted: it may be there.
    half_pushed: Option<u64>,
    /// A message whose removal was interrupted: it may be there.
    half_removed: Option<u64>,
    urgent: u64,
    normal: u64,
}

impl Expected {
    /// Nothing, and so many messages of each priority before the next one.
    fn nothing(before: u64) -> Self {
        let normal = Priority::Normal.first_id().get() + before + 1;
        Self { ids: Vec::new(), half_pushed: None, half_removed: None, urgent: before + 1, normal }
    }
}

fn run(outbox: &mut impl Outbox, expected: &mut Expected, steps: impl Iterator<Item = Step>) {
    for step in steps {
        match step {
            Step::Push(priority) => {
                let next = if priority == Priority::Urgent { &mut expected.urgent } else { &mut expected.normal };
                let message = Owned::of(*next);
                match outbox.push(message.entry()) {
                    Ok(()) => {
                        *next += 1;
                        let place = expected.ids.partition_point(|id| *id < message.id);
                        expected.ids.insert(place, message.id);
                    }
                    Err(OutboxError::Full) => {}
                    Err(OutboxError::Storage) => {
                        expected.half_pushed = Some(message.id);
                        return;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Remove(place) => {
                if place < expected.ids.len() {
                    let id = expected.ids.remove(place);
                    assert!(outbox.remove(MessageId::new(id), Outcome::Delivered));
                    expected.half_removed = Some(id);
                }
            }
        }
    }
}

fn contents(outbox: &impl Outbox) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut from = MessageId::new(0);
    while let Some(id) = outbox.next(from) {
        ids.push(id.get());
        from = id.next();
    }
    ids
}

/// Takes everything out in order, as a link does, and checks each message on its way.
fn drain(outbox: &mut impl Outbox) -> Vec<u64> {
    let mut ids = Vec::new();
    while let Some(id) = outbox.first() {
        assert_eq!(outbox.get(id), Some(Owned::of(id.get()).entry()), "damaged");
        assert!(outbox.remove(id, Outcome::Delivered));
        ids.push(id.get());
        assert!(ids.len() < 1000, "no end");
    }
    ids
}

fn check(expected: &Expected, found: &[u64], context: &str) {
    let sure: Vec<u64> = found
        .iter()
        .copied()
        .filter(|id| {
            expected.ids.contains(id) || (Some(*id) != expected.half_pushed && Some(*id) != expected.half_removed)
        })
        .collect();
    assert_eq!(sure, expected.ids, "{context}; {expected:?}");
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{context}: order or a copy: {found:?}");
}

const STEPS: usize = 120;
const PAGES: usize = 4;

/// Runs the script until the power is cut `after` so many words and pages.
fn cut(after: usize, tear: Tear) -> (Nor, Expected) {
    let mut nor = Nor::new(PAGES);
    nor.cut_after(after, tear);
    let mut expected = Expected::nothing(0);
    let range = nor.range();
    let mut record = [0; 128];
    match Flash::open(&mut nor, range, &mut record, None) {
        Ok(outbox) => {
            let mut outbox = outbox.spilling();
            for step in script(STEPS) {
                expected.half_removed = None;
                run(&mut outbox, &mut expected, std::iter::once(step));
                if outbox.wear().failed_removals > 0 || expected.half_pushed.is_some() {
                    break;
                }
            }
        }
        Err(error) => assert_eq!(error, OpenError::Flash(PowerOff)),
    }
    (nor, expected)
}

#[test]
fn every_power_cut_keeps_the_confirmed_and_forgets_the_removed() {
    let (whole, _) = cut(usize::MAX, Tear::Before);
    assert!(whole.erases.iter().all(|erases| *erases > 1), "the ring must go round: {:?}", whole.erases);
    let mut cuts = 0;
    for tear in TEARS {
        for after in 0..=whole.steps {
            let (mut nor, expected) = cut(after, tear);
            nor.reboot();
            let range = nor.range();
            let mut record = [0; 128];
            let context = format!("cut after {after}, {tear:?}");
            let mut outbox =
                Flash::open(&mut nor, range, &mut record, None).unwrap_or_else(|error| panic!("{context}: {error}"));
            outbox = outbox.spilling();
            let found = contents(&outbox);
            check(&expected, &found, &context);
            assert_eq!(outbox.usage().messages, found.len(), "{context}");
            assert_eq!(drain(&mut outbox), found, "{context}");
            // It works on as if nothing had happened.
            let mut on = Expected::nothing(500);
            run(&mut outbox, &mut on, script(40));
            assert_eq!(contents(&outbox), on.ids, "{context}");
            assert_eq!(outbox.wear().failed_removals + outbox.wear().damaged, 0, "{context}");
            cuts += 1;
        }
    }
    println!("{cuts} power cuts");
}

#[test]
fn a_second_power_cut_during_the_repair_changes_nothing() {
    let (whole, _) = cut(usize::MAX, Tear::Before);
    let mut cuts = 0;
    for first in TEARS {
        for after in 0..=whole.steps {
            let (mut damaged, expected) = cut(after, first);
            damaged.reboot();
            let repairs = {
                let mut nor = damaged.clone();
                let before = nor.steps;
                let range = nor.range();
                drop(Flash::open(&mut nor, range, &mut [0; 128], None));
                nor.steps - before
            };
            for (second, again) in TEARS.into_iter().flat_map(|tear| (0..repairs).map(move |again| (tear, again))) {
                let mut nor = damaged.clone();
                nor.cut_after(again, second);
                let range = nor.range();
                let mut record = [0; 128];
                drop(Flash::open(&mut nor, range.clone(), &mut record, None));
                assert!(nor.off);
                nor.reboot();
                let context = format!("cut after {after}, {first:?}, and {again}, {second:?}");
                let outbox = Flash::open(&mut nor, range, &mut record, None)
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                check(&expected, &contents(&outbox), &context);
                cuts += 1;
            }
        }
    }
    assert!(cuts > 100);
    println!("{cuts} second power cuts");
}

#[test]
fn without_a_power_cut_it_does_what_the_ram_outbox_does() {
    let mut nor = Nor::new(16);
    let range = nor.range();
    let mut record = [0; 128];
    let mut flash = Flash::open(&mut nor, range, &mut record, None).unwrap().spilling();
    let mut ram = RamOutbox::<64, 4096>::new();
    let (mut of_flash, mut of_ram) = (Expected::nothing(0), Expected::nothing(0));
    for step in script(2000) {
        run(&mut flash, &mut of_flash, std::iter::once(step));
        run(&mut ram, &mut of_ram, std::iter::once(step));
        assert_eq!(contents(&flash), contents(&ram));
        assert_eq!(flash.usage(), ram.usage());
        assert_eq!((flash.first(), flash.last()), (ram.first(), ram.last()));
        if let Some(id) = ram.first() {
            assert_eq!(flash.get(id), ram.get(id));
        }
    }
}

#[test]
fn without_spilling_it_keeps_the_contract_of_every_outbox() {
    steadfast_sim::outbox_contract(|| {
        let nor: &'static mut Nor = Box::leak(Box::new(Nor::new(24)));
        let (range, record) = (nor.range(), Box::leak(Box::new([0; 256])));
        FlashOutbox::<'static, &'static mut Nor, 8, 200>::open(nor, range, record, None).unwrap()
    });
}

#[test]
fn an_urgent_message_takes_the_place_of_normal_ones_in_ram() {
    let mut nor = Nor::new(16);
    let range = nor.range();
    let mut record = [0; 128];
    let normal = Priority::Normal.first_id().get();
    {
        let mut outbox = Flash::open(&mut nor, range.clone(), &mut record, None).unwrap().spilling();
        for number in 1..=20 {
            outbox.push(Owned::of(normal + number).entry()).unwrap();
        }
        for number in 1..=12 {
            outbox.push(Owned::of(number).entry()).unwrap();
        }
        assert_eq!(outbox.first(), Some(MessageId::new(1)));
        assert_eq!(outbox.get(MessageId::new(1)), Some(Owned::of(1).entry()), "at hand though the RAM was full");
        assert_eq!(outbox.usage().messages, 32);
        outbox.remove(MessageId::new(1), Outcome::Delivered);
    }
    let mut outbox = Flash::open(&mut nor, range, &mut record, None).unwrap().spilling();
    let order: Vec<u64> = (2..=12).chain(normal + 1..=normal + 20).collect();
    assert_eq!(contents(&outbox), order);
    assert_eq!(drain(&mut outbox), order, "the urgent first, after a reboot too");
    assert_eq!(outbox.wear().damaged, 0);
}

#[test]
fn a_full_flash_refuses_and_takes_again_after_removals() {
    let mut nor = Nor::new(PAGES);
    let range = nor.range();
    let mut record = [0; 128];
    let mut outbox = Flash::open(&mut nor, range, &mut record, None).unwrap().spilling();
    for round in 0..20 {
        let mut next = 1 + round * 100;
        let first = next;
        while outbox.push(Owned::of(next).entry()).is_ok() {
            next += 1;
        }
        assert_eq!(outbox.push(Owned::of(next).entry()), Err(OutboxError::Full));
        assert!(outbox.usage().messages > SLOTS, "more than what RAM holds");
        assert!(outbox.usage().messages <= outbox.capacity().messages);
        assert!(outbox.usage().bytes <= outbox.capacity().bytes);
        assert_eq!(drain(&mut outbox), (first..next).collect::<Vec<_>>());
    }
}

#[test]
fn wear_is_bounded_and_even_and_counted() {
    const MESSAGES: u64 = 3000;
    let mut nor = Nor::new(8);
    let range = nor.range();
    let mut record = [0; 128];
    let mut outbox = Flash::open(&mut nor, range, &mut record, None).unwrap().spilling();
    for id in 1..=MESSAGES {
        outbox.push(Owned::of(id).entry()).unwrap();
        if id.is_multiple_of(5) {
            drain(&mut outbox);
        }
    }
    let wear = outbox.wear();
    let payload: u64 = (1..=MESSAGES).map(Owned::of).map(|it| (it.text.len() + it.payload.len()) as u64).sum();
    assert_eq!(wear.written_bytes, nor.written);
    assert_eq!(wear.erased_pages, nor.erases.iter().sum::<u32>());
    // 27 bytes around each message, 8 more for a stamp on every fourth, padding to words, the removal of one word, and
    // page marks.
    let per_message = (wear.written_bytes - payload) / MESSAGES;
    assert!(per_message <= 44, "{per_message} bytes written per message beside its own");
    let least = u32::try_from((payload + 27 * MESSAGES) / PAGE as u64).unwrap();
    assert!(wear.erased_pages <= least * 3 / 2, "{} erases, {least} at least", wear.erased_pages);
    let (low, high) = (nor.erases.iter().min().unwrap(), nor.erases.iter().max().unwrap());
    assert!(high - low <= 1, "uneven: {:?}", nor.erases);
    println!(
        "{MESSAGES} messages: {per_message} extra bytes each, {} erases of {} pages",
        wear.erased_pages,
        nor.erases.len()
    );
}

#[test]
fn sizes_that_can_never_fit_are_told_from_a_full_flash() {
    let mut nor = Nor::new(PAGES);
    let range = nor.range();
    let mut record = [0; 128];
    let mut outbox = Flash::open(&mut nor, range, &mut record, None).unwrap().spilling();
    let payload = [7; 200];
    let entry = |len: usize| Entry::new(MessageId::new(1), Destination::Telemetry("k=v"), &payload[..len]);
    let stamped = Entry { created_unix_ms: Some(1), ..entry(99) };
    assert_eq!(outbox.push(stamped), Err(OutboxError::TooLarge { size: 102, limit: 101 }));
    let with_properties = Entry { properties: &payload[..7], ..entry(98) };
    assert_eq!(outbox.push(with_properties), Err(OutboxError::TooLarge { size: 108, limit: 107 }));
    assert_eq!(outbox.push(entry(107)), Err(OutboxError::TooLarge { size: 110, limit: 109 }));
    assert_eq!(outbox.push(entry(106)), Ok(()));
    assert_eq!(outbox.get(MessageId::new(1)), Some(entry(106)));
}

#[test]
fn expiry_times_of_an_earlier_boot_are_replaced() {
    let mut nor = Nor::new(PAGES);
    let range = nor.range();
    let mut record = [0; 128];
    let at = |millis| Some(Instant::from_millis(millis));
    {
        let mut outbox = Flash::open(&mut nor, range.clone(), &mut record, None).unwrap().spilling();
        for id in 1..=12_u64 {
            let expires = if id.is_multiple_of(2) { at(1000 + id) } else { None };
            outbox.push(Entry { expires, ..Owned::of(id).entry() }).unwrap();
        }
        while let Some(id) = outbox.first().filter(|id| id.get() <= 8) {
            let expected = if id.get() % 2 == 0 { at(1000 + id.get()) } else { None };
            assert_eq!(outbox.get(id).unwrap().expires, expected);
            outbox.remove(id, Outcome::Delivered);
        }
    }
    for restored in [None, at(5000)] {
        let outbox = Flash::open(&mut nor, range.clone(), &mut record, restored).unwrap();
        assert_eq!(contents(&outbox), [9, 10, 11, 12]);
        assert_eq!(outbox.get(MessageId::new(9)).unwrap().expires, None);
        assert_eq!(outbox.get(MessageId::new(10)).unwrap().expires, restored);
    }
}

#[test]
fn a_range_that_holds_something_else_is_refused_and_can_be_erased() {
    let mut nor = Nor::new(PAGES);
    let range = nor.range();
    let mut record = [0; 128];
    assert_eq!(Flash::open(&mut nor, 0..256, &mut record, None).unwrap_err(), OpenError::Range);
    assert_eq!(Flash::open(&mut nor, 0..512 + 4, &mut record, None).unwrap_err(), OpenError::Range);
    assert_eq!(Flash::open(&mut nor, 0..1 << 20, &mut record, None).unwrap_err(), OpenError::Range);
    for (form, error) in [
        (0x02, OpenError::Newer(2)),
        (0x85, OpenError::Newer(5)),
        (0x00, OpenError::Foreign),
        (0x01, OpenError::Foreign),
    ] {
        Flash::erase(&mut nor, range.clone()).unwrap();
        put_record(&mut nor, &[form, 9, 9]);
        assert_eq!(Flash::open(&mut nor, range.clone(), &mut record, None).unwrap_err(), error);
    }
    Flash::erase(&mut nor, range.clone()).unwrap();
    put_record(&mut nor, &[1; 200]);
    assert_eq!(Flash::open(&mut nor, range.clone(), &mut record, None).unwrap_err(), OpenError::Buffer(200));
    Flash::erase(&mut nor, range.clone()).unwrap();
    assert_eq!(contents(&Flash::open(&mut nor, range, &mut record, None).unwrap()), [0_u64; 0]);
}

/// Writes a record that this crate did not make.
fn put_record(nor: &mut Nor, bytes: &[u8]) {
    // CRC-32 of the data and CRC-16 of the length are what another writer would have put there too, so the shortest way
    // is the same library.
    use sequential_storage::{
        cache::Cache,
        queue::{QueueConfig, QueueStorage},
    };
    struct Now<'n>(&'n mut Nor);
    impl embedded_storage_async::nor_flash::ErrorType for Now<'_> {
        type Error = PowerOff;
    }
    impl embedded_storage_async::nor_flash::ReadNorFlash for Now<'_> {
        const READ_SIZE: usize = 1;
        async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerOff> {
            embedded_storage::nor_flash::ReadNorFlash::read(self.0, offset, bytes)
        }
        fn capacity(&self) -> usize {
            self.0.bytes.len()
        }
    }
    impl embedded_storage_async::nor_flash::NorFlash for Now<'_> {
        const WRITE_SIZE: usize = nor::WORD;
        const ERASE_SIZE: usize = PAGE;
        async fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerOff> {
            embedded_storage::nor_flash::NorFlash::erase(self.0, from, to)
        }
        async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerOff> {
            embedded_storage::nor_flash::NorFlash::write(self.0, offset, bytes)
        }
    }
    let range = nor.range();
    let mut queue = QueueStorage::new(Now(nor), QueueConfig::new(range), Cache::new_uncached());
    let work = std::pin::pin!(queue.push(bytes, false));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(work.poll(&mut context), std::task::Poll::Ready(Ok(())));
}
