//! What every outbox has to keep.

use std::collections::BTreeMap;

use steadfast_core::{Destination, Entry, Instant, MessageId, Outbox, OutboxError, Outcome, Priority, Usage};

use crate::rng::Rng;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    id: MessageId,
    telemetry: bool,
    text: String,
    properties: Vec<u8>,
    payload: Vec<u8>,
    retain: bool,
    expires: Option<Instant>,
    created_unix_ms: Option<u64>,
}

type Model = BTreeMap<MessageId, Kept>;

impl Kept {
    fn entry(&self) -> Entry<'_> {
        let destination =
            if self.telemetry { Destination::Telemetry(&self.text) } else { Destination::Topic(&self.text) };
        let Self { properties, payload, retain, expires, created_unix_ms, .. } = self;
        let (retain, expires, created_unix_ms) = (*retain, *expires, *created_unix_ms);
        Entry { properties, retain, expires, created_unix_ms, ..Entry::new(self.id, destination, payload) }
    }

    fn size(&self) -> usize {
        self.text.len() + self.properties.len() + self.payload.len()
    }
}

/// Checks that outboxes made by `make`, each empty, keep the contract of [`Outbox`], by a model and seeded steps.
///
/// # Panics
/// When one does not, with the seed and the step.
pub fn outbox_contract<O: Outbox>(make: impl Fn() -> O) {
    starts_empty(&make());
    takes_what_fits_and_refuses_the_rest_unchanged(make());
    puts_the_urgent_first(make());
    for seed in 0..40 {
        keeps_what_it_took(make(), seed);
    }
}

fn starts_empty(outbox: &impl Outbox) {
    assert_eq!(outbox.usage(), Usage::default(), "a new outbox is empty");
    assert_eq!((outbox.first(), outbox.last(), outbox.next(MessageId::new(0))), (None, None, None));
    assert_eq!(outbox.get(MessageId::new(1)), None);
    assert!(outbox.capacity().messages > 0, "an outbox can hold something");
}

fn takes_what_fits_and_refuses_the_rest_unchanged(mut outbox: impl Outbox) {
    let limit = outbox.capacity();
    let large = vec![7; limit.bytes + 1];
    let entry = |id, payload| bare(MessageId::new(id), payload);
    let refused = outbox.push(entry(1, &large));
    assert!(matches!(refused, Err(OutboxError::TooLarge { .. })), "what never fits is too large, not {refused:?}");
    assert_eq!(outbox.usage(), Usage::default(), "a refused push changes nothing");
    for id in 0..limit.messages as u64 {
        assert_eq!(outbox.push(entry(id + 10, &[])), Ok(()), "message {id} of {limit:?}");
    }
    assert_eq!(outbox.push(entry(u64::MAX / 2, &[])), Err(OutboxError::Full));
    assert_eq!(outbox.usage().messages, limit.messages);
    assert!(
        outbox.remove(MessageId::new(10), Outcome::Delivered) && !outbox.remove(MessageId::new(10), Outcome::Delivered)
    );
    assert_eq!(outbox.push(entry(u64::MAX / 2, &[])), Ok(()), "room is used again");
}

fn puts_the_urgent_first(mut outbox: impl Outbox) {
    let half = outbox.capacity().messages as u64 / 2;
    let (normal, urgent) = (Priority::Normal.first_id().get() + 7, 5);
    for at in 0..half {
        assert_eq!(outbox.push(bare(MessageId::new(normal + at), &[])), Ok(()));
        assert_eq!(outbox.push(bare(MessageId::new(urgent + at), &[])), Ok(()), "an urgent one among normal ones");
    }
    let expected = (urgent..urgent + half).chain(normal..normal + half).map(MessageId::new);
    for id in expected {
        assert_eq!(outbox.first(), Some(id), "the urgent ones come first, each priority in its order");
        assert_eq!(outbox.first_of(id.priority()), Some(id));
        assert_eq!(outbox.get(id), Some(bare(id, &[])));
        assert!(outbox.remove(id, Outcome::Delivered));
    }
    assert_eq!((outbox.usage(), outbox.first_of(Priority::Urgent)), (Usage::default(), None));
}

fn bare(id: MessageId, payload: &[u8]) -> Entry<'_> {
    Entry::new(id, Destination::Topic(""), payload)
}

fn keeps_what_it_took(mut outbox: impl Outbox, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut model = Model::new();
    let first = rng.draw() >> 2;
    let mut next = [Priority::Normal, Priority::Urgent].map(|priority| priority.first_id().get() + first);
    let urgent = rng.between(0, 100);
    for step in 0..200 {
        let context = format!("seed {seed}, step {step}");
        if rng.chance(60) {
            let next = &mut next[usize::from(rng.chance(urgent))];
            *next += rng.between(1, 3);
            let kept = draw(&mut rng, *next, outbox.capacity().bytes);
            match outbox.push(kept.entry()) {
                Ok(()) => drop(model.insert(kept.id, kept)),
                Err(OutboxError::Full) => {
                    let free = outbox.capacity().messages - model.len();
                    let bytes: usize = model.values().map(Kept::size).sum();
                    assert!(free == 0 || bytes + kept.size() > outbox.capacity().bytes / 2, "{context}: full too soon");
                }
                Err(OutboxError::TooLarge { .. }) => assert!(kept.size() > outbox.capacity().bytes / 2, "{context}"),
                Err(error) => panic!("{context}: {error}"),
            }
        } else if !model.is_empty() {
            let at = if rng.chance(70) { 0 } else { rng.index(model.len()) };
            let gone = model.keys().nth(at).copied().unwrap_or(MessageId::new(0));
            model.remove(&gone);
            assert!(outbox.remove(gone, Outcome::Delivered), "{context}: {gone:?} was there");
            for next in next {
                assert!(
                    !outbox.remove(MessageId::new(next + 1), Outcome::Delivered),
                    "{context}: what is not there cannot be removed"
                );
            }
        }
        compare(&outbox, &model, &mut rng, &context);
    }
}

fn draw(rng: &mut Rng, id: u64, limit: usize) -> Kept {
    let longest = (limit / 3) as u64;
    let len = usize::try_from(rng.between(0, longest)).unwrap_or(0);
    let text_len = len.min(usize::try_from(rng.between(0, 12)).unwrap_or(0));
    let letters = (0..text_len).map(|_| char::from(b'a' + rng.draw().to_le_bytes()[0] % 26));
    let text = letters.collect();
    let mut properties: Vec<u8> = (text_len..len).map(|_| rng.draw().to_le_bytes()[0]).collect();
    let at = if rng.chance(30) { rng.index(properties.len() + 1) } else { 0 };
    let payload = properties.split_off(at);
    let retain = rng.chance(20);
    let expires = rng.chance(30).then(|| Instant::from_millis(rng.between(0, 1 << 40)));
    let created_unix_ms = rng.chance(30).then(|| rng.between(1, 1 << 48));
    let (id, telemetry) = (MessageId::new(id), rng.chance(50));
    Kept { id, telemetry, text, properties, payload, retain, expires, created_unix_ms }
}

fn compare(outbox: &impl Outbox, model: &Model, rng: &mut Rng, context: &str) {
    let bytes: usize = model.values().map(Kept::size).sum();
    assert_eq!(outbox.usage().messages, model.len(), "{context}");
    assert_eq!(outbox.usage().bytes, bytes, "{context}");
    assert_eq!(outbox.first().as_ref(), model.keys().next(), "{context}");
    assert_eq!(outbox.last().as_ref(), model.keys().next_back(), "{context}");
    for priority in [Priority::Urgent, Priority::Normal] {
        let first = model.keys().find(|id| id.priority() == priority);
        assert_eq!(outbox.first_of(priority).as_ref(), first, "{context}: {priority:?}");
    }
    for kept in model.values() {
        assert_eq!(outbox.get(kept.id), Some(kept.entry()), "{context}");
        assert_eq!(outbox.next(kept.id), Some(kept.id), "{context}");
        assert_eq!(
            outbox.next(kept.id.next()).as_ref(),
            model.range(kept.id.next()..).map(|(id, _)| id).next(),
            "{context}"
        );
    }
    let anywhere = MessageId::new(rng.draw());
    let known = model.get(&anywhere).map(Kept::entry);
    assert_eq!(outbox.get(anywhere), known, "{context}");
}
