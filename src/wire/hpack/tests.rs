use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;

use super::{table::STATIC_NAMES, *};

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    let pairs = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8);
    pairs.collect()
}

fn scan(blocks: &mut FieldBlocks, block: &[u8]) -> bool {
    blocks.begin();
    blocks.scan(block);
    blocks.has_fragment()
}

/// Entries of the table and its size.
fn table(blocks: &FieldBlocks) -> (usize, u32) {
    (blocks.table.entries.len(), blocks.table.size)
}

/// A literal `:path` by its index (RFC 7541 §6.2.1).
fn path(value: &str) -> Vec<u8> {
    let mut octets = vec![0x44, value.len() as u8];
    octets.extend(value.bytes());
    octets
}

#[test]
fn the_examples_of_the_rfc_are_followed() {
    // RFC 7541 appendix C.3 to C.6
    let requests = [
        ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", (1, 57)),
        ("8286 84be 5808 6e6f 2d63 6163 6865", (2, 110)),
        (
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            (3, 164),
        ),
    ];
    let huffman_requests = [
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", (1, 57)),
        ("8286 84be 5886 a8eb 1064 9cbf", (2, 110)),
        (
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            (3, 164),
        ),
    ];
    let responses = [
        (
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
             6c65 2e63 6f6d",
            (4, 222),
        ),
        ("4803 3330 37c1 c0bf", (4, 222)),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
             54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
             5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
             3d31",
            (3, 215),
        ),
    ];
    let huffman_responses = [
        (
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            (4, 222),
        ),
        ("4883 640e ffc1 c0bf", (4, 222)),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
             77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
             9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            (3, 215),
        ),
    ];
    for (examples, most) in [
        (requests, MAX_TABLE),
        (huffman_requests, MAX_TABLE),
        (responses, 256),
        (huffman_responses, 256),
    ] {
        let mut blocks = FieldBlocks::default();
        blocks.table.resize(most);
        for (block, expected) in examples {
            assert!(!scan(&mut blocks, &octets(block)), "{block}");
            assert_eq!(table(&blocks), expected, "{block}");
        }
    }
}

#[test]
fn a_fragment_is_found_however_the_path_is_written() {
    let huffman_name = "84 b958 d33f";
    let huffman_value = "83 63febf";
    for (block, expected) in [
        ("44 03 2f2361".to_owned(), true),
        ("44 03 2f3f23".to_owned(), true),
        ("45 03 2f2361".to_owned(), true),
        ("04 03 2f2361".to_owned(), true),
        ("14 03 2f2361".to_owned(), true),
        ("00 05 3a70617468 03 2f2361".to_owned(), true),
        ("10 05 3a70617468 03 2f2361".to_owned(), true),
        ("40 05 3a70617468 03 2f2361".to_owned(), true),
        (format!("00 {huffman_name} 03 2f2361"), true),
        (format!("40 {huffman_name} {huffman_value}"), true),
        (format!("04 {huffman_value}"), true),
        ("44 03 2f6161".to_owned(), false),
        (format!("00 {huffman_name} 03 2f6161"), false),
        // another name, whose value has it
        ("00 05 3a70617467 03 2f2361".to_owned(), false),
        ("00 06 3a7061746878 03 2f2361".to_owned(), false),
        ("41 03 2f2361".to_owned(), false),
        (format!("41 {huffman_value}"), false),
        ("04 00".to_owned(), false),
    ] {
        let mut whole = FieldBlocks::default();
        assert_eq!(scan(&mut whole, &octets(&block)), expected, "{block}");
        let mut pieces = FieldBlocks::default();
        pieces.begin();
        for octet in octets(&block) {
            pieces.scan(&[octet]);
        }
        assert_eq!(pieces.has_fragment(), expected, "{block}");
        assert_eq!(table(&pieces), table(&whole), "{block}");
    }
}

#[test]
fn an_entry_keeps_its_fragment_until_it_is_evicted() {
    let mut blocks = FieldBlocks::default();
    assert!(scan(&mut blocks, &path("/#")));
    assert!(!scan(&mut blocks, &path("/")));
    // the older one and the newer one
    assert!(scan(&mut blocks, &[0xbf]));
    assert!(!scan(&mut blocks, &[0xbe]));
    // its name alone, with another value
    assert!(!scan(&mut blocks, &[0x0f, 0x30, 1, b'/']));
    assert!(scan(&mut blocks, &[0x0f, 0x30, 2, b'/', b'#']));
    // room for one: the newer
    assert!(!scan(&mut blocks, &[0x3f, 0x21, 0xbe]));
    assert_eq!(table(&blocks), (1, 38));
    assert!(scan(&mut blocks, &[0xbf]));
}

#[test]
fn what_cannot_be_followed_lets_nothing_pass() {
    for block in [
        "80",
        "be",
        "7f 00",
        "ff ff ff ff ff ff",
        "3f e2 1f",
        "7f ff ff ff ff 7f",
        "44 7f ff ff ff ff 00",
    ] {
        let mut blocks = FieldBlocks::default();
        assert!(scan(&mut blocks, &octets(block)), "{block}");
        assert!(scan(&mut blocks, &path("/")), "{block}");
    }
    for cut in ["44", "44 03 2f", "40", "7f", "40 01 61"] {
        let mut blocks = FieldBlocks::default();
        assert!(!scan(&mut blocks, &octets(cut)), "{cut}");
        assert!(scan(&mut blocks, &path("/")), "{cut}");
    }
}

#[test]
fn the_code_is_complete() {
    let codes = codes();
    for (octet, code) in [
        (b'#', huffman::FRAGMENT),
        (b':', huffman::PATH[0]),
        (b'p', huffman::PATH[1]),
        (b'a', huffman::PATH[2]),
        (b't', huffman::PATH[3]),
        (b'h', huffman::PATH[4]),
    ] {
        assert_eq!(codes[usize::from(octet)], code);
    }
    for &(code, length) in &codes {
        let bits = u64::from(code) << (64 - length);
        assert_eq!(huffman::length(bits), length);
        assert_eq!(huffman::code(bits, length), (code, length));
    }
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let text = compressed(&all, &codes);
    let mut block = vec![0x44];
    block.extend(string(&all, true, &codes));
    let mut blocks = FieldBlocks::default();
    assert!(text.len() > 256 && scan(&mut blocks, &block));
    assert_eq!(table(&blocks), (1, 5 + 256 + 32));
}

/// Lengths of the codes of all octets (RFC 7541 appendix B).
const LENGTHS: [u32; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The codes of all octets: those of one length follow each other.
fn codes() -> Vec<huffman::Code> {
    let mut codes = vec![(0, 0); 256];
    let (mut next, mut last) = (0, 5);
    for length in 5..=30 {
        for octet in (0..256).filter(|octet| LENGTHS[*octet] == length) {
            next <<= length - last;
            last = length;
            codes[octet] = (next, length);
            next += 1;
        }
    }
    codes
}

fn compressed(text: &[u8], codes: &[huffman::Code]) -> Vec<u8> {
    let mut bits = String::new();
    for octet in text {
        let (code, length) = codes[usize::from(*octet)];
        bits.push_str(&format!("{code:0length$b}", length = length as usize));
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let octets = bits.as_bytes().chunks(8);
    let number = |digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 2).unwrap();
    octets.map(number).collect()
}

fn integer(first: u8, prefix: u32, number: usize) -> Vec<u8> {
    let most = (1 << prefix) - 1;
    if number < most {
        return vec![first | number as u8];
    }
    let mut octets = vec![first | most as u8];
    let mut rest = number - most;
    while rest >= 128 {
        octets.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    octets.push(rest as u8);
    octets
}

fn string(text: &[u8], is_huffman: bool, codes: &[huffman::Code]) -> Vec<u8> {
    let (first, text) = if is_huffman {
        (0x80, compressed(text, codes))
    } else {
        (0, text.to_vec())
    };
    let mut octets = integer(first, 7, text.len());
    octets.extend(text);
    octets
}

/// Spelling of a field line, as far as its table allows.
#[derive(Debug, Clone, Copy)]
struct Form {
    kind: RepresentationKind,
    name_by_index: bool,
    huffman_name: bool,
    huffman_value: bool,
}

#[derive(Debug, Clone)]
struct Request {
    path: String,
    fields: Vec<(&'static str, String)>,
    /// One for each of the lines, in turn.
    forms: Vec<Form>,
    resize: Option<u32>,
    /// Splits of the block.
    cuts: Vec<usize>,
}

/// An encoder of its own, which keeps names and values.
struct Encoder {
    codes: Vec<huffman::Code>,
    entries: VecDeque<(String, String)>,
    most: usize,
}

impl Encoder {
    fn shrink(&mut self, most: usize) {
        let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
        while self.entries.iter().map(size).sum::<usize>() > most {
            self.entries.pop_back();
        }
    }

    fn line(&mut self, name: &str, value: &str, form: Form) -> Vec<u8> {
        let is_whole = |entry: &(String, String)| entry.0 == name && entry.1 == value;
        if let (RepresentationKind::Indexed, Some(at)) =
            (form.kind, self.entries.iter().position(is_whole))
        {
            return integer(0x80, 7, at + 62);
        }
        let dynamic = self.entries.iter().position(|entry| entry.0 == name);
        let fixed = STATIC_NAMES.iter().position(|other| *other == name);
        let index = match (form.name_by_index, dynamic, fixed) {
            (false, ..) => 0,
            (true, Some(at), _) => at + 62,
            (true, None, Some(at)) => at + 1,
            (true, None, None) => 0,
        };
        let mut octets = match form.kind {
            RepresentationKind::Added => integer(0x40, 6, index),
            RepresentationKind::Plain => integer(0, 4, index),
            RepresentationKind::Indexed | RepresentationKind::Resize => integer(0x10, 4, index),
        };
        if index == 0 {
            octets.extend(string(name.as_bytes(), form.huffman_name, &self.codes));
        }
        octets.extend(string(value.as_bytes(), form.huffman_value, &self.codes));
        if form.kind == RepresentationKind::Added {
            let size = name.len() + value.len() + 32;
            self.shrink(self.most.saturating_sub(size));
            if size <= self.most {
                self.entries.push_front((name.to_owned(), value.to_owned()));
            }
        }
        octets
    }

    fn block(&mut self, request: &Request) -> Vec<u8> {
        let mut octets = Vec::new();
        if let Some(most) = request.resize {
            self.most = most as usize;
            self.shrink(self.most);
            octets.extend(integer(0x20, 5, self.most));
        }
        let lines = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", &request.path),
            (":authority", "a"),
        ];
        let fields = request.fields.iter();
        let fields = fields.map(|(name, value)| (*name, value.as_str()));
        let forms = request.forms.iter().cycle();
        for ((name, value), form) in lines.into_iter().chain(fields).zip(forms) {
            octets.extend(self.line(name, value, *form));
        }
        octets
    }
}

/// What the h2 crate makes of the blocks.
fn received(blocks: &[Vec<u8>]) -> Vec<String> {
    let mut octets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    octets.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for (number, block) in blocks.iter().enumerate() {
        octets.extend(&(block.len() as u32).to_be_bytes()[1..]);
        octets.extend([1, 5, 0, 0, 0, 2 * number as u8 + 1]);
        octets.extend(block);
    }
    let (mut near, far) = tokio::io::duplex(1 << 20);
    near.write_all(&octets).now_or_never().unwrap().unwrap();
    let handshake = h2::server::Builder::new().handshake::<_, Bytes>(far);
    let mut connection = handshake.now_or_never().unwrap().unwrap();
    let paths = blocks.iter().map(|_| {
        let (request, _respond) = connection
            .accept()
            .now_or_never()
            .unwrap()
            .unwrap()
            .unwrap();
        let path = request.uri().path_and_query().unwrap();
        path.as_str().to_owned()
    });
    paths.collect()
}

fn forms() -> impl Strategy<Value = Vec<Form>> {
    let kinds = prop::sample::select(vec![
        RepresentationKind::Indexed,
        RepresentationKind::Indexed,
        RepresentationKind::Added,
        RepresentationKind::Added,
        RepresentationKind::Plain,
        RepresentationKind::Resize,
    ]);
    let form = (kinds, any::<[bool; 3]>()).prop_map(|(kind, flags)| Form {
        kind,
        name_by_index: flags[0],
        huffman_name: flags[1],
        huffman_value: flags[2],
    });
    prop::collection::vec(form, 1..12)
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let path = prop::sample::select(vec!["/", "/a", "/a#", "/a?#b", "/#?a", "/v1/messages?b=c"]);
    let path = prop_oneof![path.prop_map(str::to_owned), "/[a-z%]{0,9}[?]?[a#]{0,2}"];
    let value = prop_oneof![
        4 => "[a-z#]{0,3}",
        2 => "[!-~\u{80}-\u{7ff}]{0,40}",
        1 => "[a-z]{1000,1500}",
    ];
    let name = prop::sample::select(vec!["x", "x-a", "accept", "cookie", "user-agent", "path"]);
    let fields = prop::collection::vec((name, value), 0..6);
    let resize = prop::option::weighted(0.2, prop_oneof![0..200_u32, 0..=MAX_TABLE]);
    let cuts = prop::collection::vec(any::<usize>(), 0..4);
    let request =
        (path, fields, forms(), resize, cuts).prop_map(|(path, fields, forms, resize, cuts)| {
            Request {
                path,
                fields,
                forms,
                resize,
                cuts,
            }
        });
    prop::collection::vec(request, 1..12)
}

fn scan_cut(blocks: &mut FieldBlocks, block: &[u8], cuts: &[usize]) {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (block.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(block.len());
    let mut at = 0;
    for cut in cuts {
        blocks.scan(&block[at..cut]);
        at = cut;
    }
}

proptest! {
    #[test]
    fn fragments_are_found_and_the_table_is_that_of_h2(requests in requests()) {
        let mut encoder = Encoder {
            codes: codes(),
            entries: VecDeque::new(),
            most: MAX_TABLE as usize,
        };
        let mut blocks = FieldBlocks::default();
        let mut sent = Vec::new();
        for request in &requests {
            let block = encoder.block(request);
            blocks.begin();
            scan_cut(&mut blocks, &block, &request.cuts);
            prop_assert_eq!(blocks.has_fragment(), request.path.contains('#'), "{:?}", request);
            let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
            let sizes: Vec<usize> = encoder.entries.iter().map(size).collect();
            let found: Vec<usize> = blocks.table.entries.iter().map(|it| it.size.into()).collect();
            prop_assert_eq!(found, sizes);
            sent.push(block);
        }
        let whole = requests.iter().map(|request| request.path.split('#').next().unwrap());
        let whole: Vec<&str> = whole.collect();
        prop_assert_eq!(received(&sent), whole);
    }

    #[test]
    fn any_octets_are_followed_to_the_same_end(
        sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
        cuts in prop::collection::vec(any::<usize>(), 0..9),
    ) {
        let (mut whole, mut pieces) = (FieldBlocks::default(), FieldBlocks::default());
        for block in &sent {
            let expected = scan(&mut whole, block);
            pieces.begin();
            scan_cut(&mut pieces, block, &cuts);
            prop_assert_eq!(pieces.has_fragment(), expected);
            prop_assert_eq!(table(&pieces), table(&whole));
            prop_assert!(whole.table.entries.len() <= 128 && whole.table.size <= MAX_TABLE);
        }
    }
}
