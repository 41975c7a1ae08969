//! The queue of reported properties: patches in order, merged if the result is the same.

use core::fmt;

use heapless::Vec;

use super::reported_limits::{self, ReportError};
use crate::json::{Reader, Str, Token, Value};
use crate::queue::pop_front;
use crate::text::{Sink, SinkFull, Slice};

/// Most patches that wait one behind the other.
const PATCHES: usize = 4;

/// Names a patch of reported properties; several calls share one when their patches were merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportId(u32);

impl ReportId {
    /// Returns the number: later patches have greater ones.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Patches of reported properties that the service has not acknowledged, the oldest first.
///
/// A new patch is merged into the latest unsent one: the last write to a path wins, and `null` deletes. If the newer
/// one writes into an object that the older one deletes or replaces by another value, they stay two patches. Two are
/// enough for any number of patches: the first one deletes, the second one has the last writes.
#[derive(Clone)]
pub(super) struct Reports<B> {
    buffer: B,
    lens: Vec<usize, PATCHES>,
    /// The oldest patch was sent and must not change.
    frozen: bool,
    /// The number of the youngest patch.
    youngest: u32,
}

impl<B> fmt::Debug for Reports<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the buffer: reported properties may be confidential.
        f.debug_struct("Reports").field("lens", &self.lens).field("frozen", &self.frozen).finish_non_exhaustive()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Reports<B> {
    pub(super) const fn new(buffer: B) -> Self {
        Self { buffer, lens: Vec::new(), frozen: false, youngest: 0 }
    }

    /// Takes other memory, while nothing waits.
    pub(super) fn set_room(&mut self, buffer: B) {
        self.buffer = buffer;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// Queues a patch.
    pub(super) fn push(&mut self, patch: &[u8]) -> Result<ReportId, ReportError> {
        reported_limits::check(patch)?;
        let used = self.used();
        if self.merge(patch, used) || self.rebase(patch, used) {
            return Ok(ReportId(self.youngest));
        }
        let capacity = self.buffer.as_ref().len();
        if patch.len() > capacity {
            return Err(ReportError::TooLarge { size: patch.len(), limit: capacity });
        }
        let free = self.buffer.as_mut().get_mut(used..).unwrap_or_default();
        if self.lens.is_full() || Slice::new(free).put(patch).is_err() {
            return Err(ReportError::Full);
        }
        let _ = self.lens.push(patch.len());
        self.youngest = self.youngest.wrapping_add(1);
        Ok(ReportId(self.youngest))
    }

    /// Returns the oldest patch.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.buffer.as_ref().get(..*self.lens.first()?)
    }

    /// Marks the oldest patch as sent: from now on it does not change until it is removed.
    pub(super) fn freeze(&mut self) {
        self.frozen = true;
    }

    /// Allows merging of the oldest patch again: it is unknown whether the service has it, and a patch is idempotent.
    pub(super) fn thaw(&mut self) {
        self.frozen = false;
    }

    /// Removes the oldest patch and returns its id.
    pub(super) fn pop(&mut self) -> Option<ReportId> {
        let used = self.used();
        let number = self.youngest.wrapping_sub(u32::try_from(self.lens.len()).ok()?).wrapping_add(1);
        let len = pop_front(&mut self.lens)?;
        remove_front(self.buffer.as_mut().get_mut(..used)?, len);
        self.frozen = false;
        Some(ReportId(number))
    }

    fn used(&self) -> usize {
        self.lens.iter().fold(0, |sum, len| sum.saturating_add(*len))
    }

    /// Merges `patch` into the youngest patch and returns whether that could be done.
    fn merge(&mut self, patch: &[u8], used: usize) -> bool {
        let alone = self.lens.len() == 1;
        let Some(len) = self.lens.last().copied().filter(|_| !(alone && self.frozen)) else { return false };
        let start = used.saturating_sub(len);
        let Some((before, free)) = self.buffer.as_mut().split_at_mut_checked(used) else { return false };
        let mut out = Slice::new(free);
        let merged = before.get(start..).is_some_and(|older| merge(older, patch, false, &mut out).is_ok());
        let size = out.len();
        if !merged {
            return false;
        }
        self.replace(used, len, size);
        if let Some(len) = self.lens.last_mut() {
            *len = size;
        }
        true
    }

    /// Merges a patch into the two latest ones, if neither was sent, and returns whether that was possible.
    fn rebase(&mut self, patch: &[u8], used: usize) -> bool {
        let [.., first, second] = *self.lens.as_slice() else { return false };
        if self.frozen && self.lens.len() == 2 {
            return false;
        }
        let both = first.saturating_add(second);
        let start = used.saturating_sub(both);
        let Some((before, free)) = self.buffer.as_mut().split_at_mut_checked(used) else { return false };
        let Some((base, older)) = before.get(start..).and_then(|both| both.split_at_checked(first)) else {
            return false;
        };
        let mut out = Slice::new(free);
        if deletions(base, older, patch, &mut out).is_err() {
            return false;
        }
        let first = out.len();
        if merge(older, patch, true, &mut out).is_err() {
            return false;
        }
        let size = out.len();
        self.replace(used, both, size);
        if let [.., one, two] = self.lens.as_mut_slice() {
            (*one, *two) = (first, size.saturating_sub(first));
        }
        true
    }

    /// Replaces the last `len` bytes of the patches by the `size` bytes behind them.
    fn replace(&mut self, used: usize, len: usize, size: usize) {
        let range = used.saturating_sub(len)..used.saturating_add(size);
        remove_front(self.buffer.as_mut().get_mut(range).unwrap_or_default(), len);
    }
}

/// Moves what follows the first `len` bytes to the front.
pub(super) fn remove_front(bytes: &mut [u8], len: usize) {
    // The comparison lets the compiler remove the panic.
    if len <= bytes.len() {
        bytes.copy_within(len.., 0);
    }
}

/// Two patches that cannot be one, or have no room.
#[derive(Debug)]
struct Apart;

impl From<SinkFull> for Apart {
    fn from(_: SinkFull) -> Self {
        Self
    }
}

/// Writes the patch that combines `older` and then `younger`. Both were checked before. `based`: another patch with the
/// [`deletions`] goes before it.
fn merge(older: &[u8], younger: &[u8], based: bool, out: &mut Slice<'_>) -> Result<(), Apart> {
    out.put(b"{")?;
    let mut first = true;
    for (key, old) in members(older) {
        match find(younger, key) {
            None => put_member(out, &mut first, key, old.raw())?,
            Some(new) if new.is_object() && old.is_object() => {
                put_member(out, &mut first, key, "")?;
                merge(old.raw().as_bytes(), new.raw().as_bytes(), based, out)?;
            }
            Some(new) if new.is_object() && !based => return Err(Apart),
            Some(new) => put_member(out, &mut first, key, new.raw())?,
        }
    }
    for (key, new) in members(younger) {
        if find(older, key).is_none() {
            put_member(out, &mut first, key, new.raw())?;
        }
    }
    Ok(out.put(b"}")?)
}

/// Writes `base`, and in it the deletion of what `older` deletes or replaces and `younger` makes an object.
fn deletions(base: &[u8], older: &[u8], younger: &[u8], out: &mut Slice<'_>) -> Result<(), Apart> {
    out.put(b"{")?;
    let mut first = true;
    for (key, old) in members(base) {
        match (find(older, key), find(younger, key)) {
            (Some(middle), Some(new)) if old.is_object() && new.is_object() => {
                put_deletion(out, &mut first, key, old.raw(), middle, new)?;
            }
            // What is no object has nothing in it to delete.
            _ => put_member(out, &mut first, key, old.raw())?,
        }
    }
    for (key, new) in members(younger) {
        if let Some(middle) = find(older, key)
            && new.is_object()
            && find(base, key).is_none()
        {
            put_deletion(out, &mut first, key, "{}", middle, new)?;
        }
    }
    Ok(out.put(b"}")?)
}

fn put_deletion(
    out: &mut Slice<'_>,
    first: &mut bool,
    key: Str<'_>,
    base: &str,
    older: Value<'_>,
    younger: Value<'_>,
) -> Result<(), Apart> {
    if !older.is_object() {
        return put_member(out, first, key, "null");
    }
    put_member(out, first, key, "")?;
    deletions(base.as_bytes(), older.raw().as_bytes(), younger.raw().as_bytes(), out)
}

fn put_member(out: &mut Slice<'_>, first: &mut bool, key: Str<'_>, value: &str) -> Result<(), Apart> {
    out.put(if core::mem::take(first) { b"\"" } else { b",\"" })?;
    out.put(key.raw().as_bytes())?;
    out.put(b"\":")?;
    Ok(out.put(value.as_bytes())?)
}

/// Lists the members of an object.
#[cfg_attr(target_pointer_width = "32", inline(never))]
pub(super) fn members(object: &[u8]) -> impl Iterator<Item = (Str<'_>, Value<'_>)> {
    let mut reader = Reader::new(object);
    let _ = reader.next();
    core::iter::from_fn(move || match reader.next() {
        Ok(Some(Token::Key(key))) => Some((key, reader.value().ok()?)),
        _ => None,
    })
}

/// Finds a member of an object; the last of several with one name counts.
fn find<'a>(object: &'a [u8], key: Str<'_>) -> Option<Value<'a>> {
    members(object).filter(|(other, _)| other.chars().eq(key.chars())).last().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::borrow::ToOwned;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn reports() -> Reports<[u8; 256]> {
        Reports::new([0; 256])
    }

    fn waiting(reports: &mut Reports<[u8; 256]>) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(patch) = reports.first() {
            all.push(String::from_utf8(patch.to_vec()).unwrap());
            reports.pop();
        }
        all
    }

    #[test]
    fn patches_are_merged_per_path_where_that_changes_nothing() {
        let table: [(&[&str], &[&str]); 8] = [
            (&[r#"{"a":1}"#, r#"{"b":2}"#], &[r#"{"a":1,"b":2}"#]),
            (&[r#"{"a":1,"b":1}"#, r#"{ "a" : 2 }"#], &[r#"{"a":2,"b":1}"#]),
            (&[r#"{"a":{"x":1,"y":1}}"#, r#"{"a":{"y":2,"z":3}}"#], &[r#"{"a":{"x":1,"y":2,"z":3}}"#]),
            (&[r#"{"a":1}"#, r#"{"a":null}"#], &[r#"{"a":null}"#]),
            (&[r#"{"a":{"x":1}}"#, r#"{"a":5}"#], &[r#"{"a":5}"#]),
            // Merged, the object written last would keep the service's old members.
            (&[r#"{"a":null}"#, r#"{"a":{"x":1}}"#], &[r#"{"a":null}"#, r#"{"a":{"x":1}}"#]),
            (&[r#"{"a":5}"#, r#"{"a":{"x":1}}"#, r#"{"b":1}"#], &[r#"{"a":5}"#, r#"{"a":{"x":1},"b":1}"#]),
            (&[r#"{"\u0061":1}"#, r#"{"a":2}"#], &[r#"{"\u0061":2}"#]),
        ];
        for (pushed, expected) in table {
            let mut reports = reports();
            for patch in pushed {
                reports.push(patch.as_bytes()).unwrap();
            }
            assert_eq!(waiting(&mut reports), expected, "{pushed:?}");
        }
    }

    #[test]
    fn a_patch_that_was_sent_stays_as_it_is() {
        let mut reports = reports();
        let first = reports.push(br#"{"a":1}"#).unwrap();
        reports.freeze();
        let second = reports.push(br#"{"a":2}"#).unwrap();
        assert_eq!(reports.push(br#"{"b":3}"#), Ok(second));
        assert_eq!(reports.first(), Some(&br#"{"a":1}"#[..]));
        assert_eq!(reports.pop(), Some(first));
        assert_eq!(reports.first(), Some(&br#"{"a":2,"b":3}"#[..]));
        assert_eq!(reports.pop(), Some(second));
        assert_eq!(reports.pop(), None);
    }

    #[test]
    fn without_room_a_patch_is_refused_and_nothing_changes() {
        let mut reports = Reports::new([0; 24]);
        reports.push(br#"{"a":"0123456"}"#).unwrap();
        assert_eq!(reports.push(br#"{"b":"0123456"}"#), Err(ReportError::Full));
        assert_eq!(
            reports.push(&[b"{\"b\":\"".as_slice(), &[b'x'; 30], b"\"}"].concat()).unwrap_err().to_string(),
            "the reported properties count 38 bytes; the limit is 24"
        );
        assert_eq!(reports.first(), Some(&br#"{"a":"0123456"}"#[..]));
    }

    /// A twin's section as a tree, and the service's merge rule.
    #[derive(Clone, Debug, PartialEq)]
    enum Tree {
        Null,
        Leaf(u8),
        Node(std::collections::BTreeMap<String, Self>),
    }

    impl Tree {
        fn apply(self, patch: &Self) -> Self {
            let Self::Node(changes) = patch else { return patch.clone() };
            let mut members = match self {
                Self::Node(members) => members,
                Self::Null | Self::Leaf(_) => std::collections::BTreeMap::new(),
            };
            for (key, change) in changes {
                let before = members.remove(key).unwrap_or(Self::Null);
                let after = before.apply(change);
                if after != Self::Null {
                    members.insert(key.clone(), after);
                }
            }
            Self::Node(members)
        }

        fn write(&self) -> String {
            match self {
                Self::Null => "null".to_owned(),
                Self::Leaf(number) => number.to_string(),
                Self::Node(members) => {
                    let all: Vec<_> =
                        members.iter().map(|(key, value)| std::format!("\"{key}\":{}", value.write())).collect();
                    std::format!("{{{}}}", all.join(","))
                }
            }
        }

        fn read(text: &[u8]) -> Self {
            let read = |value: Value<'_>| match value.as_u64() {
                Some(number) => Self::Leaf(u8::try_from(number).unwrap()),
                None if value.is_null() => Self::Null,
                None => Self::read(value.raw().as_bytes()),
            };
            Self::Node(members(text).map(|(key, value)| (key.raw().to_owned(), read(value))).collect())
        }
    }

    fn node(depth: u32) -> BoxedStrategy<Tree> {
        let leaf = prop_oneof![Just(Tree::Null), (0..4_u8).prop_map(Tree::Leaf)];
        let value = if depth == 0 { leaf.boxed() } else { prop_oneof![leaf, node(depth - 1)].boxed() };
        prop::collection::btree_map("[ab]", value, 0..3).prop_map(Tree::Node).boxed()
    }

    #[test]
    fn an_object_that_is_deleted_and_written_again_and_again_ends_as_it_was_written_last() {
        let mut reports = reports();
        for number in 0..100 {
            reports.push(br#"{"alarm":null}"#).unwrap();
            reports.push(std::format!(r#"{{"alarm":{{"n":{number}}}}}"#).as_bytes()).unwrap();
        }
        assert_eq!(waiting(&mut reports), [r#"{"alarm":null}"#, r#"{"alarm":{"n":99}}"#]);
        reports.push(br#"{"alarm":5}"#).unwrap();
        reports.freeze();
        for _ in 0..100 {
            reports.push(br#"{"alarm":null}"#).unwrap();
            reports.push(br#"{"alarm":{"n":1},"b":2}"#).unwrap();
        }
        assert_eq!(waiting(&mut reports).len(), 3);
    }

    /// What happens to reports.
    #[derive(Clone, Debug)]
    enum Step {
        Push(Tree),
        /// The oldest is sent and reaches the service.
        Sent,
        /// It is sent and lost.
        Lost,
        Acknowledged,
        Disconnected,
    }

    fn step() -> BoxedStrategy<Step> {
        let push = || node(2).prop_map(Step::Push);
        let other = prop_oneof![Just(Step::Sent), Just(Step::Lost), Just(Step::Acknowledged), Just(Step::Disconnected)];
        prop_oneof![push(), push(), push(), other].boxed()
    }

    proptest! {
        #[test]
        fn whatever_happens_on_the_way_the_service_ends_with_what_was_reported(
            start in node(2),
            steps in prop::collection::vec(step(), 1..40),
        ) {
            let mut service = Tree::Node(std::collections::BTreeMap::new()).apply(&start);
            let mut expected = service.clone();
            let mut reports = Reports::new([0; 4096]);
            let (mut sent, mut arrived) = (false, false);
            for step in steps {
                match step {
                    Step::Push(patch) => {
                        reports.push(patch.write().as_bytes()).unwrap();
                        expected = expected.apply(&patch);
                    }
                    Step::Sent | Step::Lost if !sent && !reports.is_empty() => {
                        arrived = matches!(step, Step::Sent);
                        if arrived {
                            service = service.apply(&Tree::read(reports.first().unwrap()));
                        }
                        reports.freeze();
                        sent = true;
                    }
                    Step::Acknowledged if sent && arrived => {
                        reports.pop();
                        sent = false;
                    }
                    Step::Disconnected => {
                        reports.thaw();
                        sent = false;
                    }
                    Step::Sent | Step::Lost | Step::Acknowledged => {}
                }
            }
            while let Some(patch) = reports.first() {
                service = service.apply(&Tree::read(patch));
                reports.pop();
            }
            prop_assert_eq!(service, expected);
        }

        #[test]
        fn merged_patches_do_what_they_do_one_by_one(start in node(2), patches in prop::collection::vec(node(2), 1..4)) {
            // The service stores no nulls.
            let start = Tree::Node(std::collections::BTreeMap::new()).apply(&start);
            let mut reports = Reports::new([0; 1024]);
            let mut expected = start.clone();
            for patch in &patches {
                reports.push(patch.write().as_bytes()).unwrap();
                expected = expected.apply(patch);
            }
            let mut service = start;
            while let Some(patch) = reports.first() {
                service = service.apply(&Tree::read(patch));
                reports.pop();
            }
            prop_assert_eq!(service, expected);
        }
    }
}
