//! Commands and answers of a TPM 2.0, as bytes (TCG, TPM 2.0 Library, part 1, section 18; part 2; part 3).

use zeroize::Zeroizing;

/// Longest answer that is read, in bytes, as in Linux (`TPM_BUFSIZE`).
pub(super) const ANSWER_MAX: usize = 4096;

/// Bytes of the header of an answer: tag, size, code.
pub(super) const HEADER: usize = 10;

/// `TPM_RS_PW`: the authorisation is a password, here an empty one.
const PASSWORD: u32 = 0x4000_0009;

/// A command of part 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    EvictControl = 0x120,
    CreatePrimary = 0x131,
    SequenceComplete = 0x13e,
    ActivateCredential = 0x147,
    PolicySecret = 0x151,
    Hmac = 0x155,
    Import = 0x156,
    Load = 0x157,
    HmacStart = 0x15b,
    SequenceUpdate = 0x15c,
    FlushContext = 0x165,
    ReadPublic = 0x173,
    StartAuthSession = 0x176,
    GetCapability = 0x17a,
}

impl Command {
    /// Returns its name in part 3.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::EvictControl => "TPM2_EvictControl",
            Self::CreatePrimary => "TPM2_CreatePrimary",
            Self::SequenceComplete => "TPM2_SequenceComplete",
            Self::ActivateCredential => "TPM2_ActivateCredential",
            Self::PolicySecret => "TPM2_PolicySecret",
            Self::Hmac => "TPM2_HMAC",
            Self::Import => "TPM2_Import",
            Self::Load => "TPM2_Load",
            Self::HmacStart => "TPM2_HMAC_Start",
            Self::SequenceUpdate => "TPM2_SequenceUpdate",
            Self::FlushContext => "TPM2_FlushContext",
            Self::ReadPublic => "TPM2_ReadPublic",
            Self::StartAuthSession => "TPM2_StartAuthSession",
            Self::GetCapability => "TPM2_GetCapability",
        }
    }

    /// Whether its answer starts with a handle.
    const fn gives_handle(self) -> bool {
        matches!(self, Self::CreatePrimary | Self::Load | Self::HmacStart | Self::StartAuthSession)
    }
}

/// Encoded parameters. They may contain a secret.
#[derive(Default)]
pub(super) struct Parameters(Zeroizing<Vec<u8>>);

impl Parameters {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn short(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends bytes with their length before them, a `TPM2B`.
    pub(super) fn sized(mut self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes.get(..usize::from(length)).unwrap_or(bytes));
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Composes a command. `authorisations` are the sessions for its handles, [`None`] for an empty password.
pub(super) fn compose(
    command: Command,
    handles: &[u32],
    authorisations: &[Option<u32>],
    parameters: &Parameters,
) -> Zeroizing<Vec<u8>> {
    let mut area = Vec::new();
    for session in authorisations {
        area.extend_from_slice(&session.unwrap_or(PASSWORD).to_be_bytes());
        // No nonce, to be used again, no HMAC: neither a password nor a policy of PolicySecret has one.
        area.extend_from_slice(&[0, 0, 1, 0, 0]);
    }
    // TPM_ST_SESSIONS, TPM_ST_NO_SESSIONS.
    let tag: u16 = if area.is_empty() { 0x8001 } else { 0x8002 };
    let area_size = if area.is_empty() { 0 } else { 4 + area.len() };
    let size = HEADER + 4 * handles.len() + area_size + parameters.0.len();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    bytes.extend_from_slice(&tag.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&(command as u32).to_be_bytes());
    for handle in handles {
        bytes.extend_from_slice(&handle.to_be_bytes());
    }
    if !area.is_empty() {
        bytes.extend_from_slice(&u32::try_from(area.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&area);
    }
    bytes.extend_from_slice(&parameters.0);
    bytes
}

/// Returns the size that the header of an answer names, and its code.
pub(super) fn header(answer: &[u8]) -> Option<(usize, u32)> {
    let size = answer.get(2..6)?.try_into().ok()?;
    let code = answer.get(6..HEADER)?.try_into().ok()?;
    Some((usize::try_from(u32::from_be_bytes(size)).ok()?, u32::from_be_bytes(code)))
}

/// Splits a successful answer into its handle, if the command returns one, and its parameters.
pub(super) fn split(command: Command, answer: &[u8]) -> Option<(u32, Reader<'_>)> {
    let tag = answer.first_chunk::<2>()?;
    let mut reader = Reader(answer.get(HEADER..)?);
    let handle = if command.gives_handle() { reader.long()? } else { 0 };
    if *tag == [0x80, 2] {
        let size = usize::try_from(reader.long()?).ok()?;
        reader = Reader(reader.0.get(..size)?);
    }
    Some((handle, reader))
}

/// Reads bytes from the front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn long(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*first))
    }

    /// Takes a `TPM2B`, without its length.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (bytes, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_composed_as_part_3_lays_them_out() {
        let bare = compose(Command::FlushContext, &[], &[], &Parameters::new().long(0x8000_0001));
        assert_eq!(*bare, [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65, 0x80, 0, 0, 1]);
        let two = compose(Command::Load, &[0x8100_0001], &[None], &Parameters::new().sized(b"ab").byte(7).short(9));
        let expected = [
            &[0x80, 2, 0, 0, 0, 34, 0, 0, 1, 0x57, 0x81, 0, 0, 1, 0, 0, 0, 9][..],
            &[0x40, 0, 0, 9, 0, 0, 1, 0, 0, 0, 2, b'a', b'b', 7, 0, 9],
        ];
        assert_eq!(*two, expected.concat());
    }

    #[test]
    fn answers_are_split_and_broken_ones_are_none() {
        let load =
            [&[0x80, 2, 0, 0, 0, 26, 0, 0, 0, 0, 0x80, 0, 0, 5, 0, 0, 0, 4, 0, 2][..], b"nm", &[0, 0, 1, 0]].concat();
        assert_eq!(header(&load), Some((26, 0)));
        let (handle, mut parameters) = split(Command::Load, &load).unwrap();
        assert_eq!((handle, parameters.sized()), (0x8000_0005, Some(&b"nm"[..])));
        for end in 0..load.len() - 4 {
            assert!(split(Command::Load, &load[..end]).is_none(), "{end}");
        }
        assert_eq!(Reader(&[0, 3, 1, 2]).sized(), None);
        assert_eq!(header(&load[..9]), None);
    }
}
