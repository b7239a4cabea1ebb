//! CBOR (RFC 8949) items as bytes, with every choice of encoding open to the caller.

/// An item's head: its major type (0 to 7) and argument in the shortest form.
#[must_use]
pub fn head(major: u8, argument: u64) -> Vec<u8> {
    match argument {
        0..24 => head_sized(major, argument, 0),
        24..0x100 => head_sized(major, argument, 1),
        0x100..0x1_0000 => head_sized(major, argument, 2),
        0x1_0000..0x1_0000_0000 => head_sized(major, argument, 4),
        _ => head_sized(major, argument, 8),
    }
}

/// An item's head with the argument in `size` bytes: 0 (within the first byte), 1, 2, 4 or 8. What does
/// not fit is cut off.
#[must_use]
pub fn head_sized(major: u8, argument: u64, size: usize) -> Vec<u8> {
    let bytes = argument.to_be_bytes();
    let information = match size {
        0 => bytes.last().copied().unwrap_or_default() & 0x1f,
        1 => 24,
        2 => 25,
        4 => 26,
        _ => 27,
    };
    let mut head = vec![(major << 5) | information];
    if size > 0 {
        head.extend(bytes.iter().skip(bytes.len().saturating_sub(size)));
    }
    head
}

/// An unsigned integer.
#[must_use]
pub fn unsigned(value: u64) -> Vec<u8> {
    head(0, value)
}

/// A byte string.
#[must_use]
pub fn bytes(value: &[u8]) -> Vec<u8> {
    string(2, value)
}

/// A text string.
#[must_use]
pub fn text(value: &str) -> Vec<u8> {
    string(3, value.as_bytes())
}

/// A byte string or null.
#[must_use]
pub fn optional_bytes(value: Option<&[u8]>) -> Vec<u8> {
    value.map_or_else(null, bytes)
}

/// A byte string (`major` 2) or text string (3) of indefinite length, in chunks.
#[must_use]
pub fn chunked(major: u8, chunks: &[&[u8]]) -> Vec<u8> {
    let mut item = vec![(major << 5) | 31];
    for chunk in chunks {
        item.extend(string(major, chunk));
    }
    item.push(BREAK);
    item
}

/// An array of items.
#[must_use]
pub fn array(items: &[Vec<u8>]) -> Vec<u8> {
    let mut item = head(4, length(items.len()));
    item.extend(items.concat());
    item
}

/// An array of items, of indefinite length.
#[must_use]
pub fn array_indefinite(items: &[Vec<u8>]) -> Vec<u8> {
    [vec![0x9f], items.concat(), vec![BREAK]].concat()
}

/// A map of entries, in the order given, repeated keys included.
#[must_use]
pub fn map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut item = head(5, length(entries.len()));
    item.extend(flat(entries));
    item
}

/// A map of entries, of indefinite length.
#[must_use]
pub fn map_indefinite(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    [vec![0xbf], flat(entries), vec![BREAK]].concat()
}

/// The simple value null.
#[must_use]
pub fn null() -> Vec<u8> {
    vec![0xf6]
}

/// The byte that ends an item of indefinite length.
pub const BREAK: u8 = 0xff;

fn string(major: u8, value: &[u8]) -> Vec<u8> {
    let mut item = head(major, length(value.len()));
    item.extend(value);
    item
}

fn flat(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    entries.iter().flat_map(|(key, value)| [key.as_slice(), value]).collect::<Vec<_>>().concat()
}

fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_encode_as_in_rfc_8949_appendix_a() {
        assert_eq!(unsigned(23), [0x17]);
        assert_eq!(unsigned(24), [0x18, 0x18]);
        assert_eq!(unsigned(1000), [0x19, 0x03, 0xe8]);
        assert_eq!(unsigned(1_000_000), [0x1a, 0x00, 0x0f, 0x42, 0x40]);
        assert_eq!(
            unsigned(1_000_000_000_000),
            [0x1b, 0x00, 0x00, 0x00, 0xe8, 0xd4, 0xa5, 0x10, 0x00]
        );
        assert_eq!(bytes(&[1, 2, 3, 4]), [0x44, 1, 2, 3, 4]);
        assert_eq!(text("IETF"), [0x64, 0x49, 0x45, 0x54, 0x46]);
        assert_eq!(array(&[unsigned(1), unsigned(2), unsigned(3)]), [0x83, 1, 2, 3]);
        assert_eq!(array_indefinite(&[]), [0x9f, 0xff]);
        assert_eq!(
            map(&[(unsigned(1), unsigned(2)), (unsigned(3), unsigned(4))]),
            [0xa2, 1, 2, 3, 4]
        );
        assert_eq!(
            chunked(2, &[&[1, 2], &[3, 4, 5]]),
            [0x5f, 0x42, 0x01, 0x02, 0x43, 0x03, 0x04, 0x05, 0xff]
        );
        assert_eq!(head_sized(0, 1, 8), [0x1b, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
