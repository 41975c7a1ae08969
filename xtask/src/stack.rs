//! What stack a function of an image needs at most, from the sizes of frames that the compiler wrote down
//! (`-Zemit-stack-sizes`) and the calls that its code makes.
//!
//! A call through a pointer counts as one of any function that nobody calls directly. A jump through a pointer at the end
//! of a function counts as none: it looks like that of a `match`. What recurs counts once.

use crate::elf::{self, half, word};
use std::collections::BTreeMap;

/// The compiler's flag that writes the sizes down.
pub(crate) const FLAG: &str = "-Zemit-stack-sizes";

#[derive(Debug, Default)]
struct Function {
    name: String,
    end: u32,
    frame: u64,
    calls: Vec<u32>,
    /// It calls through a pointer.
    indirect: bool,
}

/// The functions of an image, by their address.
#[derive(Debug)]
pub(crate) struct Stack {
    functions: BTreeMap<u32, Function>,
    entry: u32,
    /// Functions that nobody calls directly.
    uncalled: Vec<u32>,
}

/// The most that a function and what it calls need, and which functions those are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) bytes: u64,
    addresses: Vec<u32>,
}

impl Stack {
    /// Reads an image for riscv32imc that was built with [`FLAG`].
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read(file: &[u8]) -> Result<Self, String> {
        let sections = elf::sections(file)?;
        let found = |name: &str| sections.iter().find(|section| section.name == name);
        let (symbols, names) = found(".symtab").zip(found(".strtab")).ok_or("the image has no symbols")?;
        let frames = found(".stack_sizes").ok_or("the image has no sizes of frames")?;
        let mut functions: BTreeMap<u32, Function> = BTreeMap::new();
        for symbol in symbols.bytes.chunks_exact(16) {
            let (Some(name), Some(address), Some(size)) = (word(symbol, 0), word(symbol, 4), word(symbol, 8)) else {
                continue;
            };
            // STT_FUNC.
            if symbol.get(12).is_some_and(|info| info & 15 == 2) && size > 0 {
                let name = names.bytes.get(name as usize..).unwrap_or_default().split(|byte| *byte == 0).next();
                let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                functions.insert(address, Function { name, end: address + size, ..Function::default() });
            }
        }
        let mut rest = frames.bytes;
        while let Some(address) = word(rest, 0) {
            rest = rest.get(4..).unwrap_or_default();
            let (mut frame, mut shift) = (0_u64, 0);
            while let Some((byte, behind)) = rest.split_first() {
                rest = behind;
                frame |= u64::from(byte & 0x7f) << shift;
                shift = (shift + 7).min(56);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            if let Some(function) = functions.get_mut(&address) {
                function.frame = frame;
            }
        }
        for (start, function) in &mut functions {
            let Some(section) = sections.iter().find(|section| section.holds(*start)) else { continue };
            let range = (start - section.address) as usize..(function.end - section.address) as usize;
            let code = section.bytes.get(range).unwrap_or_default();
            (function.calls, function.indirect) = calls(code, *start);
        }
        let entry = word(file, 24).unwrap_or_default();
        let called: Vec<u32> = functions.values().flat_map(|function| function.calls.iter().copied()).collect();
        let uncalled = functions.keys().copied().filter(|at| *at != entry && !called.contains(at)).collect();
        Ok(Self { functions, entry, uncalled })
    }

    /// Returns what the function at `path` needs at most with all that it calls, such as `["firmware_qemu", "device"]`.
    ///
    /// # Errors
    /// When the image has no such function.
    pub(crate) fn of(&self, path: [&str; 2]) -> Result<Chain, String> {
        // Both forms of mangling have the names like this.
        let key = path.map(|part| format!("{}{part}", part.len())).concat();
        let named = |name: &str| {
            name.split_once(&key).is_some_and(|(_, rest)| {
                rest.is_empty() || rest.starts_with("17h") || rest.starts_with(|tag: char| tag.is_ascii_uppercase())
            })
        };
        let mut found = self.functions.iter().filter(|(_, function)| named(&function.name)).map(|(at, _)| *at);
        let start = found.next().ok_or_else(|| format!("the image has no function {}", path.join("::")))?;
        Ok(self.deepest(start, start, &mut BTreeMap::new()))
    }

    /// Returns the functions of a chain with their frames, as a list.
    pub(crate) fn list(&self, chain: &Chain) -> String {
        let functions = chain.addresses.iter().filter_map(|at| self.functions.get(at));
        functions.map(|function| format!("    {:>6} {}\n", function.frame, function.name)).collect()
    }

    fn deepest(&self, at: u32, root: u32, known: &mut BTreeMap<u32, Chain>) -> Chain {
        if let Some(chain) = known.get(&at) {
            return chain.clone();
        }
        let Some(function) = self.functions.get(&at) else { return Chain::default() };
        // What calls itself counts once.
        known.insert(at, Chain::default());
        let anybody = if function.indirect { self.uncalled.as_slice() } else { &[] };
        let below = function.calls.iter().chain(anybody).filter(|below| **below != root && **below != self.entry);
        let below = below.map(|below| self.deepest(*below, root, known)).max_by_key(|chain| chain.bytes);
        let below = below.unwrap_or_default();
        let addresses = std::iter::once(at).chain(below.addresses).collect();
        let chain = Chain { bytes: function.frame + below.bytes, addresses };
        known.insert(at, chain.clone());
        chain
    }
}

/// Returns which functions the code at `start` calls, and whether it calls through a pointer.
fn calls(code: &[u8], start: u32) -> (Vec<u32>, bool) {
    let (mut found, mut indirect, mut at) = (Vec::new(), false, 0);
    let mut upper: Option<(u32, u32)> = None;
    let outside = |target: u32| target < start || target >= start + u32::try_from(code.len()).unwrap_or(u32::MAX);
    while let Some(low) = half(code, at).and_then(|low| u32::try_from(low).ok()) {
        let pc = start.wrapping_add(u32::try_from(at).unwrap_or(u32::MAX));
        let before = upper.take();
        if low & 3 != 3 {
            at += 2;
            match (low & 3, low >> 13) {
                // c.jal, c.j
                (1, 1 | 5) => {
                    let target = pc.wrapping_add(compressed_offset(low));
                    if outside(target) {
                        found.push(target);
                    }
                }
                // c.jalr
                (2, 4) if low & 0x1000 != 0 && low & 0x7c == 0 && low & 0xf80 != 0 => indirect = true,
                _ => {}
            }
            continue;
        }
        at += 4;
        let Some(code) = word(code, at - 4) else { break };
        let register = code >> 7 & 31;
        match code & 0x7f {
            // jal
            0x6f => {
                let target = pc.wrapping_add(jump_offset(code));
                if outside(target) {
                    found.push(target);
                }
            }
            // auipc
            0x17 => upper = Some((register, pc.wrapping_add(code & 0xffff_f000))),
            // jalr
            0x67 => match before {
                Some((from, base)) if from == code >> 15 & 31 => {
                    found.push(base.wrapping_add(extended(code >> 20, 12)));
                }
                _ => indirect |= register != 0,
            },
            _ => {}
        }
    }
    (found, indirect)
}

/// Extends the sign of a number of `bits` bits.
const fn extended(value: u32, bits: u32) -> u32 {
    let sign = 1 << (bits - 1);
    (value ^ sign).wrapping_sub(sign)
}

/// Where `jal` jumps to, from its place.
const fn jump_offset(code: u32) -> u32 {
    let offset = code >> 11 & 0x10_0000 | code & 0xf_f000 | code >> 9 & 0x800 | code >> 20 & 0x7fe;
    extended(offset, 21)
}

/// Where `c.j` and `c.jal` jump to, from their place.
const fn compressed_offset(code: u32) -> u32 {
    let high = code >> 1 & 0x800 | code << 2 & 0x400 | code >> 1 & 0x300 | code << 1 & 0x80;
    let low = code >> 1 & 0x40 | code << 3 & 0x20 | code >> 7 & 0x10 | code >> 2 & 0xe;
    extended(high | low, 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_in_every_form() {
        // jal ra, +12; c.jal +32; c.j -4; auipc ra, 1 and jalr ra, 8(ra); c.jalr a0.
        let code = [0xef, 0x00, 0xc0, 0x00, 0x05, 0x20, 0xf5, 0xbf, 0x97, 0x10, 0, 0, 0xe7, 0x80, 0x80, 0, 0x02, 0x95];
        let (found, indirect) = calls(&code[..16], 0x1000);
        assert_eq!(found, [0x1024, 0x2010], "the first and the third stay in the function");
        assert!(!indirect);
        assert_eq!(calls(&code, 0x1000), (found, true));
        assert_eq!(calls(&code[..4], 0x1000).0, [0x100c]);
    }

    #[test]
    fn the_deepest_chain_counts_and_what_recurs_counts_once() {
        let function = |frame, calls: &[u32], indirect| Function {
            name: format!("_RNvC_4test1{}", char::from(b'a' + u8::try_from(frame % 26).unwrap())),
            end: 0,
            frame,
            calls: calls.to_vec(),
            indirect,
        };
        let functions = [
            (4, function(26, &[8, 12], false)),
            (8, function(10, &[8], true)),
            (12, function(30, &[], false)),
            (16, function(40, &[4], false)),
        ];
        let stack = Stack { functions: functions.into(), entry: 0, uncalled: vec![16] };
        assert_eq!(stack.of(["test", "a"]), Ok(Chain { bytes: 76, addresses: vec![4, 8, 16] }));
        assert!(stack.of(["test", "z"]).is_err());
    }
}
