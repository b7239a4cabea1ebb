//! Just enough of Rust's lexical grammar to ask which names released code uses: comments,
//! literals and everything under `#[cfg(test)]` are left out.

/// A name or a punctuation mark, with the line it is on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Token {
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text
    }
}

/// What is left of a file, and the modules that it declares for tests only.
pub(crate) struct Released {
    pub(crate) tokens: Vec<Token>,
    pub(crate) test_modules: Vec<String>,
}

/// The tokens of a file outside comments, literals and `#[cfg(test)]`.
pub(crate) fn released(source: &str) -> Released {
    let tokens = tokens(source);
    let mut out = Released { tokens: Vec::new(), test_modules: Vec::new() };
    let mut at = 0;
    while at < tokens.len() {
        let cfg_test = ["#", "[", "cfg", "(", "test", ")", "]"];
        if starts_with(&tokens[at..], &cfg_test) {
            let end = item_end(&tokens, at + cfg_test.len());
            let item = &tokens[at..end];
            let module = item.iter().position(|token| token.is("mod"));
            if let (Some(module), Some(last)) = (module, item.last())
                && last.is(";")
            {
                out.test_modules.push(item[module + 1].text.clone());
            }
            at = end;
        } else {
            out.tokens.push(tokens[at].clone());
            at += 1;
        }
    }
    out
}

pub(crate) fn starts_with(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.is(text))
}

/// The index behind the item that begins at `at`: behind its `;`, or its outermost `}`; a field or
/// a variant ends at its `,`.
fn item_end(tokens: &[Token], at: usize) -> usize {
    const ITEMS: &[&str] = &[
        "fn", "mod", "impl", "struct", "enum", "trait", "use", "const", "static", "type", "unsafe",
    ];
    let before_block = tokens[at..].iter().take_while(|token| !token.is("{") && !token.is(";"));
    let is_item = before_block.into_iter().any(|token| ITEMS.contains(&token.text.as_str()));
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return index + 1;
                }
            }
            ";" if depth == 0 => return index + 1,
            "," if depth == 0 && !is_item => return index + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let start = at;
        let c = get(at);
        if c == '/' && get(at + 1) == '/' {
            while at < chars.len() && get(at) != '\n' {
                at += 1;
            }
        } else if c == '/' && get(at + 1) == '*' {
            let mut depth = 0;
            loop {
                match (get(at), get(at + 1)) {
                    ('/', '*') => (depth, at) = (depth + 1, at + 2),
                    ('*', '/') => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 || at >= chars.len() {
                    break;
                }
            }
        } else if let Some(end) = raw_string_end(&chars, at) {
            at = end;
        } else if c == '"' || (matches!(c, 'b' | 'c') && get(at + 1) == '"') {
            at += usize::from(c != '"') + 1;
            while at < chars.len() && get(at) != '"' {
                at += if get(at) == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' && (get(at + 1) == '\\' || get(at + 2) == '\'') {
            at += if get(at + 1) == '\\' { 3 } else { 2 };
            while at < chars.len() && get(at) != '\'' {
                at += 1;
            }
            at += 1;
        } else if c.is_alphanumeric() || c == '_' {
            while get(at).is_alphanumeric() || get(at) == '_' {
                at += 1;
            }
            out.push(Token { text: chars[start..at].iter().collect(), line });
        } else {
            if !c.is_whitespace() {
                out.push(Token { text: c.to_string(), line });
            }
            at += 1;
        }
        let end = at.min(chars.len());
        line += chars[start..end].iter().filter(|c| **c == '\n').count();
    }
    out
}

/// The end of a raw string that begins at `at`, if one does.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let mut open = at;
    if matches!(get(open), 'b' | 'c') {
        open += 1;
    }
    if get(open) != 'r' {
        return None;
    }
    open += 1;
    let hashes = (open..).take_while(|i| get(*i) == '#').count();
    open += hashes;
    if get(open) != '"' {
        return None;
    }
    let closes = |end: usize| get(end) == '"' && (1..=hashes).all(|i| get(end + i) == '#');
    Some((open + 1..chars.len()).find(|end| closes(*end))? + hashes + 1)
}

#[test]
fn comments_literals_and_tests_are_left_out() {
    let source = r##"
        use std::fmt; // std::fs
        /* std::env /* nested */ std::net */
        const A: &str = "std::thread \" std::env";
        const B: &str = r#"std::process " "#;
        const C: char = '"'; const D: u8 = b'\''; fn f<'a>(x: &'a str) {}
        #[cfg(test)]
        #[allow(dead_code)]
        mod tests { fn g() { std::fs::read("x"); } }
        #[cfg(test)]
        impl<A, B> Pair<A, B> for E { fn h() { std::env::args(); } }
        #[cfg(test)]
        mod cases;
        const AFTER: u8 = 1;
    "##;
    let released = released(source);
    let words: Vec<&str> = released.tokens.iter().map(|t| t.text.as_str()).collect();
    for absent in ["fs", "env", "net", "thread", "process", "nested", "tests", "g", "h", "cases"] {
        assert!(!words.contains(&absent), "{absent}");
    }
    for present in ["fmt", "A", "B", "C", "D", "f", "AFTER"] {
        assert!(words.contains(&present), "{present}");
    }
    assert_eq!(released.test_modules, ["cases"]);
    assert_eq!(released.tokens.last().unwrap().line, 14);
}
