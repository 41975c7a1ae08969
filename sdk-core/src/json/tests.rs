use super::*;
use proptest::prelude::*;
use std::format;
use std::string::String;
use std::vec::Vec;

fn read(text: &[u8]) -> Result<Vec<Token<'_>>, JsonError> {
    let mut reader = Reader::new(text);
    let mut tokens = Vec::new();
    while let Some(token) = reader.next()? {
        tokens.push(token);
        assert!(tokens.len() <= text.len(), "every token takes at least one byte");
    }
    Ok(tokens)
}

#[test]
fn a_document_is_read_token_by_token() {
    let tokens = read(br#" { "a" : [ 1 , -2.5e+3, true,false, null ], "b":{}, "c":"x\ny", "d":[] } "#).unwrap();
    assert_eq!(
        tokens,
        [
            Token::ObjectStart,
            Token::Key(Str("a")),
            Token::ArrayStart,
            Token::Number(Number("1")),
            Token::Number(Number("-2.5e+3")),
            Token::Bool(true),
            Token::Bool(false),
            Token::Null,
            Token::ArrayEnd,
            Token::Key(Str("b")),
            Token::ObjectStart,
            Token::ObjectEnd,
            Token::Key(Str("c")),
            Token::String(Str("x\\ny")),
            Token::Key(Str("d")),
            Token::ArrayStart,
            Token::ArrayEnd,
            Token::ObjectEnd,
        ]
    );
}

#[test]
fn what_is_not_json_is_refused_where_it_begins() {
    let table: [(&[u8], usize, Problem); 30] = [
        (b"", 0, Problem::End),
        (b"  ", 2, Problem::End),
        (b"{", 1, Problem::End),
        (b"[1", 2, Problem::End),
        (b"[1,", 3, Problem::End),
        (b"tru", 3, Problem::End),
        (b"NaN", 0, Problem::Unexpected),
        (b"nan", 1, Problem::Unexpected),
        (b"Infinity", 0, Problem::Unexpected),
        (b"-Infinity", 1, Problem::Unexpected),
        (b"[1,]", 3, Problem::Unexpected),
        (b"[,1]", 1, Problem::Unexpected),
        (b"[1 2]", 3, Problem::Unexpected),
        (b"[1}", 2, Problem::Unexpected),
        (b"{\"a\":1]", 6, Problem::Unexpected),
        (b"{\"a\":1,}", 7, Problem::Unexpected),
        (b"{\"a\"}", 4, Problem::Unexpected),
        (b"{\"a\",1}", 4, Problem::Unexpected),
        (b"{a:1}", 1, Problem::Unexpected),
        (b"{1:1}", 1, Problem::Unexpected),
        (b"01", 1, Problem::Trailing),
        (b"+1", 0, Problem::Unexpected),
        (b"1.", 2, Problem::End),
        (b"1.e5", 2, Problem::Unexpected),
        (b"{} {}", 3, Problem::Trailing),
        (b"\"a", 2, Problem::End),
        (b"\"\\x\"", 2, Problem::Escape),
        (b"\"\\u12g4\"", 5, Problem::Escape),
        (b"\"a\nb\"", 2, Problem::Control),
        (b"\"\xff\"", 1, Problem::Encoding),
    ];
    for (text, at, problem) in table {
        assert_eq!(read(text), Err(JsonError { at, problem }), "{}", text.escape_ascii());
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(nested(16).as_bytes()).is_ok());
    assert_eq!(read(nested(17).as_bytes()), Err(JsonError { at: 16, problem: Problem::Depth }));
    assert_eq!(read("{\"a\":".repeat(10_000).as_bytes()), Err(JsonError { at: 80, problem: Problem::Depth }));
}

#[test]
fn a_whole_value_is_captured_as_it_is_written() {
    let mut reader = Reader::new(br#"{"a": {"b": [1, {"c":2}]} , "d" : 7 ,"e":[ ]}"#);
    assert_eq!(reader.next(), Ok(Some(Token::ObjectStart)));
    for (key, value) in [("a", r#"{"b": [1, {"c":2}]}"#), ("d", "7"), ("e", "[ ]")] {
        assert_eq!(reader.next(), Ok(Some(Token::Key(Str(key)))));
        assert_eq!(reader.value().unwrap().raw(), value);
    }
    assert!(reader.clone().value().is_err(), "the object ends where a value was asked for");
    assert_eq!(reader.next(), Ok(Some(Token::ObjectEnd)));
    assert_eq!(reader.next(), Ok(None));
    assert!(reader.value().is_err());
    assert_eq!(Reader::new(b" null ").value().map(Value::is_null), Ok(true));
}

#[test]
fn numbers_are_read_only_when_they_fit() {
    let number = |text: &'static str| Number(text);
    assert_eq!(number("18446744073709551615").as_u64(), Some(u64::MAX));
    assert_eq!(number("18446744073709551616").as_u64(), None);
    assert_eq!(number("-9223372036854775808").as_i64(), Some(i64::MIN));
    for text in ["1.0", "1e3", "-1", "99999999999999999999999999"] {
        assert_eq!(number(text).as_u64(), None, "{text}");
    }
    assert_eq!(number("-1").as_i64(), Some(-1));
}

#[test]
fn strings_are_unescaped_on_demand() {
    let mut buffer = [0; 16];
    let string = Str(r#"\u0061\/\"\\\b\f\n\r\t\u00e9\ud83d\ude00"#);
    assert_eq!(string.unescape(&mut [0; 32]), Some("a/\"\\\u{8}\u{c}\n\r\t\u{e9}\u{1f600}"));
    assert_eq!(string.unescape(&mut buffer[..4]), None);
    assert_eq!(string.plain(), None);
    assert_eq!(Str("plain").plain(), Some("plain"));
    for half in [r"\ud83d", r"\ud83dx", r"\ude00", r"\ud83d\u0041"] {
        assert_eq!(Str(half).chars().next(), Some('\u{fffd}'), "{half}");
    }
    assert_eq!(Str(r"\ud83d\u0041").chars().nth(1), Some('A'));
    assert!(Str(r"\u0072etry") == "retry");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn near_json_is_judged_as_an_independent_parser_judges_it(
        text in r#"[\[\]{}:,"0-9.eE+\-truefalsn \\/a]{0,24}"#,
    ) {
        let other: Result<serde_json::Value, _> = serde_json::from_str(&text);
        match (read(text.as_bytes()), other) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
            // The other parser turns numbers into floats, which are bounded, and refuses half a surrogate pair.
            (Ok(_), Err(error)) => prop_assert!(
                format!("{error}").contains("number out of range") || text.contains("\\ud"), "{text} {error}"
            ),
            (Err(error), Ok(_)) => prop_assert!(error.problem == Problem::Depth, "{text} {error}"),
        }
    }

    #[test]
    fn strings_of_an_independent_writer_mean_the_same(text in ".{0,40}") {
        let written = serde_json::to_string(&text).unwrap();
        let value = Reader::new(written.as_bytes()).value().unwrap();
        let read: String = value.as_str().unwrap().chars().collect();
        prop_assert_eq!(read, text);
    }
}
