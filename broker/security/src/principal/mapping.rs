//! `ssl.principal.mapping.rules`: the user name of a certificate's subject (`SslPrincipalMapper`).
//!
//! The patterns are regular expressions of Rust: without look-around and back-references, so that
//! none takes time without bound. Rules that cannot work are refused when they are set; Kafka
//! refuses some of them only when a client connects. A pattern has to match the whole subject.
//! Then, as in Java, each place where it matches is replaced.

use std::ops::Range;

use regex::{Captures, Regex, RegexBuilder};

/// The longest text of rules.
const RULES_BYTES_MAX: usize = 64 * 1024;

/// The memory that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// The longest name that a rule may make.
const NAME_BYTES_MAX: usize = 64 * 1024;

/// What Java's `\s` matches.
const SPACES: [char; 6] = [' ', '\t', '\n', '\u{b}', '\u{c}', '\r'];

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRules {
    /// The text is too long.
    #[error("ssl.principal.mapping.rules has more than {RULES_BYTES_MAX} bytes")]
    TooLong,
    /// The text is no rule, or goes on behind one.
    #[error("Invalid rule: `{rule}`, unmatched substring: `{rest}`")]
    Syntax {
        /// The rule.
        rule: String,
        /// What is too much.
        rest: String,
    },
    /// The pattern does not compile.
    #[error("Invalid rule: `{rule}`: {reason}")]
    Pattern {
        /// The rule.
        rule: String,
        /// Why not.
        reason: String,
    },
    /// The replacement does not fit the pattern.
    #[error("Invalid rule: `{rule}`: {reason}")]
    Replacement {
        /// The rule.
        rule: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Why a subject has no name: its connection fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoName {
    /// No rule matches.
    #[error("No rules apply to {0}")]
    NoRule(String),
    /// The name would be too long.
    #[error("the name of {0} would have more than {NAME_BYTES_MAX} bytes")]
    TooLong(String),
}

/// The rules of a listener.
#[derive(Clone, Debug)]
pub struct MappingRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
enum Rule {
    Default,
    Replace { whole: Regex, each: Regex, replacement: Vec<Part>, letters: Letters },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letters {
    AsTheyAre,
    Lower,
    Upper,
}

/// A part of a replacement.
#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Group(usize),
}

impl MappingRules {
    /// Parses rules with commas between: `DEFAULT` or `RULE:pattern/replacement/[L|U]`.
    ///
    /// # Errors
    /// Why the first wrong rule is wrong.
    pub fn parse(text: &str) -> Result<Self, BadRules> {
        if text.len() > RULES_BYTES_MAX {
            return Err(BadRules::TooLong);
        }
        let (mut rules, mut rest) = (Vec::new(), Some(text));
        while let Some(text) = rest {
            let text = text.trim_start_matches(SPACES);
            let (rule, length) = match fields(text) {
                Some(fields) => (Some(fields.rule(text)?), fields.length),
                None if text.starts_with("DEFAULT") => (Some(Rule::Default), "DEFAULT".len()),
                None => (None, 0),
            };
            let (between, after) = match text[length..].split_once(',') {
                Some((between, after)) => (between, Some(after)),
                None => (&text[length..], None),
            };
            let between = between.trim_end_matches(SPACES);
            if !between.is_empty() {
                let rule = text[..length + between.len()].to_owned();
                return Err(BadRules::Syntax { rule, rest: between.to_owned() });
            }
            rules.extend(rule);
            rest = after;
        }
        Ok(Self { rules })
    }

    /// The name of a subject: by the first rule whose pattern matches all of it.
    ///
    /// # Errors
    /// When no rule matches.
    pub fn name(&self, subject: &str) -> Result<String, NoName> {
        for rule in &self.rules {
            match rule {
                Rule::Default => return Ok(subject.to_owned()),
                Rule::Replace { whole, each, replacement, letters } if whole.is_match(subject) => {
                    let name = replaced(subject, each, replacement);
                    let name = name.ok_or_else(|| NoName::TooLong(subject.to_owned()))?;
                    return Ok(match letters {
                        Letters::AsTheyAre => name,
                        Letters::Lower => name.to_lowercase(),
                        Letters::Upper => name.to_uppercase(),
                    });
                }
                Rule::Replace { .. } => {}
            }
        }
        Err(NoName::NoRule(subject.to_owned()))
    }
}

/// Where a rule that is not `DEFAULT` has its parts.
struct Fields {
    pattern: Range<usize>,
    replacement: Range<usize>,
    letters: Letters,
    length: usize,
}

/// The parts of the rule at the beginning of a text, if there is one.
fn fields(text: &str) -> Option<Fields> {
    const BEGIN: &str = "RULE:";
    text.strip_prefix(BEGIN)?;
    let pattern = BEGIN.len()..slash(text, BEGIN.len())?;
    let replacement = pattern.end + 1..slash(text, pattern.end + 1)?;
    let end = replacement.end + 1;
    let (letters, length) = match text.as_bytes().get(end) {
        Some(b'L') => (Letters::Lower, end + 1),
        Some(b'U') => (Letters::Upper, end + 1),
        _ => (Letters::AsTheyAre, end),
    };
    Some(Fields { pattern, replacement, letters, length })
}

/// The next slash from `from` on that no backslash escapes.
fn slash(text: &str, from: usize) -> Option<usize> {
    let mut letters = text[from..].char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '/' => return Some(from + at),
            '\\' => _ = letters.next()?,
            _ => {}
        }
    }
    None
}

impl Fields {
    fn rule(&self, text: &str) -> Result<Rule, BadRules> {
        let named = || text[..self.length].to_owned();
        let compile = |pattern: &str| {
            RegexBuilder::new(pattern)
                .size_limit(PATTERN_BYTES_MAX)
                .build()
                .map_err(|error| BadRules::Pattern { rule: named(), reason: error.to_string() })
        };
        let pattern = &text[self.pattern.clone()];
        // Java has `\/` for a slash, Rust does not escape it.
        let pattern = unescaped_slashes(pattern);
        let (each, whole) = (compile(&pattern)?, compile(&format!(r"\A(?:{pattern})\z"))?);
        let replacement = parts(&text[self.replacement.clone()], &each)
            .map_err(|reason| BadRules::Replacement { rule: named(), reason })?;
        Ok(Rule::Replace { whole, each, replacement, letters: self.letters })
    }
}

fn unescaped_slashes(pattern: &str) -> String {
    let (mut plain, mut letters) = (String::with_capacity(pattern.len()), pattern.chars());
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('/') => plain.push('/'),
                other => plain.extend([Some('\\'), other].into_iter().flatten()),
            },
            (letter, false) => plain.push(letter),
        }
    }
    plain
}

/// The parts of a replacement, as `Matcher.appendReplacement` reads it. `$4` where the pattern
/// has one to three groups is just a text (`SslPrincipalMapper.escapeLiteralBackReferences`).
fn parts(replacement: &str, pattern: &Regex) -> Result<Vec<Part>, &'static str> {
    let groups = pattern.captures_len() - 1;
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut rest = replacement.chars().peekable();
    while let Some(letter) = rest.next() {
        let group = match letter {
            '\\' => {
                text.push(rest.next().ok_or("the replacement ends with a backslash")?);
                continue;
            }
            '$' => match rest.next() {
                Some('{') => {
                    let name: String = rest.by_ref().take_while(|c| *c != '}').collect();
                    let mut names = pattern.capture_names();
                    names.position(|n| n == Some(&*name)).ok_or("the replacement names no group")?
                }
                Some(digit) => {
                    let value = |c: char| c.to_digit(10).map(|digit| digit as usize);
                    let mut group = value(digit).ok_or("$ in the replacement names no group")?;
                    if group > groups && groups > 0 {
                        text.extend(['$', digit]);
                        continue;
                    }
                    if group > groups {
                        return Err("the replacement names a group, and the pattern has none");
                    }
                    while let Some(more) = rest.peek().copied().and_then(value)
                        && group * 10 + more <= groups
                    {
                        group = group * 10 + more;
                        rest.next();
                    }
                    group
                }
                None => return Err("the replacement ends with $"),
            },
            letter => {
                text.push(letter);
                continue;
            }
        };
        parts.extend([Part::Text(std::mem::take(&mut text)), Part::Group(group)]);
    }
    parts.push(Part::Text(text));
    Ok(parts)
}

/// `String.replaceAll`: unlike Rust, Java also replaces an empty match at the end of the last one.
fn replaced(subject: &str, each: &Regex, replacement: &[Part]) -> Option<String> {
    let (mut name, mut copied, mut from) = (String::new(), 0, 0);
    while let Some(captures) =
        (from <= subject.len()).then(|| each.captures_at(subject, from)).flatten()
    {
        let found = captures.get(0)?.range();
        name.push_str(&subject[copied..found.start]);
        append(&mut name, &captures, replacement);
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        copied = found.end;
        let next_letter = subject[found.end..].chars().next().map_or(1, char::len_utf8);
        from = if found.is_empty() { found.end + next_letter } else { found.end };
    }
    name.push_str(&subject[copied..]);
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

fn append(name: &mut String, captures: &Captures<'_>, replacement: &[Part]) {
    for part in replacement {
        name.push_str(match part {
            Part::Text(text) => text,
            Part::Group(group) => captures.get(*group).map_or("", |found| found.as_str()),
        });
    }
}
