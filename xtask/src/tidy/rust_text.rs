//! As much of Rust's syntax as the rules need: what is code, and what is compiled for tests only.

/// `text` with every character of comments, strings and character literals replaced by a space, so that what is left is code.
/// Line breaks stay, so lines keep their numbers.
pub(super) fn code_only(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end = literal_or_comment_end(&characters, at);
        if end == at {
            code.push(characters[at]);
            at += 1;
        } else {
            code.extend(
                characters[at..end]
                    .iter()
                    .map(|&character| if character == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` where none does.
fn literal_or_comment_end(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => position(text, at, |rest| rest[0] == '\n'),
        '/' if next == Some('*') => block_comment_end(text, at),
        '"' => string_end(text, at),
        'r' if !continues_a_word(text, at) => raw_string_end(text, at + 1).unwrap_or(at),
        '\'' => character_end(text, at),
        _ => at,
    }
}

/// An `r` or `br` begins a raw string only where it does not end a name.
fn continues_a_word(text: &[char], at: usize) -> bool {
    let is_word = |character: &char| character.is_alphanumeric() || *character == '_';
    let before = |back: usize| at.checked_sub(back).and_then(|at| text.get(at));
    match before(1) {
        Some('b' | 'c') => before(2).is_some_and(is_word),
        other => other.is_some_and(is_word),
    }
}

fn block_comment_end(text: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0_u32, at);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            // The caller stands at an opening, so the depth is at least 1 here.
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string_end(text: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The end of a raw string whose hashes begin at `at`; None where it is none, as in `r#match`.
fn raw_string_end(text: &[char], at: usize) -> Option<usize> {
    let hashes = text[at..]
        .iter()
        .take_while(|&&character| character == '#')
        .count();
    if text.get(at + hashes) != Some(&'"') {
        return None;
    }
    let closes =
        |rest: &[char]| rest[0] == '"' && rest[1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    Some((position(text, at + hashes + 1, closes) + 1 + hashes).min(text.len()))
}

/// The end of a character literal; `at` for a lifetime.
fn character_end(text: &[char], at: usize) -> usize {
    match (text.get(at + 1), text.get(at + 2)) {
        // The quote of `'\''` is passed over, as is the letter of any other escape.
        (Some('\\'), _) => (position(text, at + 3, |rest| rest[0] == '\'') + 1).min(text.len()),
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

/// The first position from `from` on where `found` holds of the rest; the end where it never does.
fn position(text: &[char], from: usize, found: impl Fn(&[char]) -> bool) -> usize {
    (from..text.len())
        .find(|&at| found(&text[at..]))
        .unwrap_or(text.len())
}

/// For each line of `code` (see [`code_only`]), whether it is compiled only for tests.
pub(super) fn test_only_lines(code: &str) -> Vec<bool> {
    let lines: Vec<&str> = code.lines().collect();
    let mut test_only = vec![code.contains("#![cfg(test)]"); lines.len()];
    let mut at = 0;
    while at < lines.len() {
        if is_test_attribute(lines[at]) {
            let end = item_end(&lines, at);
            test_only[at..end].fill(true);
            at = end;
        } else {
            at += 1;
        }
    }
    test_only
}

/// The names of modules in files of their own that are compiled only for tests: those of `#[cfg(test)] mod name;`.
pub(super) fn test_only_modules(code: &str) -> Vec<String> {
    let lines: Vec<&str> = code.lines().collect();
    let attributes = (0..lines.len()).filter(|&at| is_test_attribute(lines[at]));
    let items = attributes.map(|at| lines[at..item_end(&lines, at)].join(" "));
    items
        .filter_map(|item| module_name(&item).filter(|_| item.trim_end().ends_with(';')))
        .collect()
}

/// The name after `mod` in an item.
pub(super) fn module_name(item: &str) -> Option<String> {
    let mut words = item.split(|character: char| !(character.is_alphanumeric() || character == '_'));
    words.find(|word| *word == "mod")?;
    words.find(|word| !word.is_empty()).map(str::to_owned)
}

fn is_test_attribute(line: &str) -> bool {
    let line = line.trim_start();
    // `any(test, …)` is compiled without tests too.
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test,")
}

/// The line after the item whose attribute stands at line `at`: after its closing brace, or its semicolon where it has no braces.
fn item_end(lines: &[&str], at: usize) -> usize {
    // Only braces decide: a `;` inside brackets or parentheses, as in `[u8; 4]`, ends nothing.
    let (mut braces, mut others) = (0_i32, 0_i32);
    for (number, line) in lines.iter().enumerate().skip(at) {
        for character in line.chars() {
            match character {
                '{' => braces += 1,
                '}' => braces -= 1,
                '(' | '[' => others += 1,
                ')' | ']' => others -= 1,
                _ => (),
            }
            let ends = matches!(character, '}' | ';') && braces <= 0 && others <= 0;
            if ends {
                return number + 1;
            }
        }
    }
    lines.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        // The text, and the words of it that are code.
        let cases = [
            ("a // b\nc", "a c"),
            ("a /* b /* c */ d */ e", "a e"),
            (r#"f("x\"y")+g"#, "f( )+g"),
            ("b\"x\" r#\"a\"b\"# end", "b end"),
            ("'a' &'static str, '\\'', b'\\n' x", "&'static str, , b x"),
            ("for r in rs { r#match }", "for r in rs { r#match }"),
        ];
        for (text, words) in cases {
            let code = code_only(text);
            assert_eq!(code.chars().count(), text.chars().count(), "{text}");
            assert_eq!(
                code.split_whitespace().collect::<Vec<_>>().join(" "),
                words,
                "{text}"
            );
        }
    }

    #[test]
    fn an_unclosed_literal_ends_with_the_text() {
        for text in ["\"open", "/* open", "r#\"open\"", "'\\", "\"\\"] {
            assert_eq!(code_only(text).chars().count(), text.chars().count());
        }
    }

    #[test]
    fn lines_of_test_items_are_known() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nconst D: [u8; 2] = [1, 2];\nfn e() {}\n";
        let lines = [false, true, true, true, true, false, true, true, false];
        assert_eq!(test_only_lines(code), lines);
        assert_eq!(
            test_only_lines("#[cfg(any(test, feature = x))]\nfn f() {}\n"),
            [false, false]
        );
        assert_eq!(test_only_lines("#![cfg(test)]\nfn f() {}\n"), [true, true]);
    }

    #[test]
    fn modules_for_tests_in_files_of_their_own_are_known() {
        let code = "#[cfg(test)]\nmod tests;\n#[cfg(all(test, unix))]\npub(crate) mod fixtures;\n#[cfg(test)]\nmod inline {}\nmod real;\n";
        assert_eq!(test_only_modules(code), ["tests", "fixtures"]);
    }
}
