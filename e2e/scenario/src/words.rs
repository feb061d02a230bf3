//! The words of an event: positional words first, then `key=value` pairs and flags in any order.
//! An event with an unused word fails. Otherwise a typo would make an event do less than its author
//! meant.

use std::cell::Cell;
use std::str::FromStr;

/// The words of an event. A missing or malformed word panics; the runner adds the place.
#[derive(Debug)]
pub struct EventArgs<'a> {
    line: &'a str,
    words: Vec<Word<'a>>,
    /// The number of positional words taken.
    taken: usize,
}

#[derive(Debug)]
struct Word<'a> {
    text: &'a str,
    /// The end of the word in the line.
    end: usize,
    used: Cell<bool>,
}

impl<'a> EventArgs<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        let mut end = 0;
        let words = line.split_whitespace().map(|text| {
            end += line[end..].find(text).unwrap_or(0) + text.len();
            Word { text, end, used: Cell::new(false) }
        });
        Self { line, words: words.collect(), taken: 0 }
    }

    /// The next positional word.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is an error, and not an end, when there is none"
    )]
    pub fn next(&mut self) -> &'a str {
        self.next_if(|_| true).unwrap_or_else(|| self.fail("a word is missing"))
    }

    /// The next positional word, if it satisfies `is_wanted`.
    pub fn next_if(&mut self, is_wanted: impl Fn(&str) -> bool) -> Option<&'a str> {
        let word = self
            .words
            .get(self.taken)
            .filter(|word| !word.text.contains('=') && is_wanted(word.text))?;
        word.used.set(true);
        self.taken += 1;
        Some(word.text)
    }

    /// The next positional word, as a number.
    pub fn next_number<T: FromStr>(&mut self) -> T {
        let text = self.next();
        self.parsed(text)
    }

    /// The rest of the line after the words taken.
    pub fn rest(&mut self) -> &'a str {
        let from = self
            .taken
            .checked_sub(1)
            .and_then(|last| self.words.get(last))
            .map_or(0, |word| word.end);
        self.words.iter().for_each(|word| word.used.set(true));
        self.taken = self.words.len();
        self.line[from..].trim()
    }

    /// Whether the flag is set.
    pub fn flag(&self, name: &str) -> bool {
        let mut found = false;
        for word in self.words.iter().skip(self.taken).filter(|word| word.text == name) {
            word.used.set(true);
            found = true;
        }
        found
    }

    /// The value of a key.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        match *self.texts(key) {
            [] => None,
            [value] => Some(value),
            _ => self.fail(&format!("{key:?} is said twice")),
        }
    }

    /// The values of a key that may occur more than once.
    pub fn texts(&self, key: &str) -> Vec<&'a str> {
        self.pairs_if(|found| found == key).into_iter().map(|(_, value)| value).collect()
    }

    /// All pairs, with any key.
    pub fn pairs(&self) -> Vec<(&'a str, &'a str)> {
        self.pairs_if(|_| true)
    }

    fn pairs_if(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<(&'a str, &'a str)> {
        let words = self.words.iter().skip(self.taken);
        let pairs = words.filter_map(|word| word.text.split_once('=').map(|pair| (word, pair)));
        let wanted = pairs.filter(|(_, (key, _))| is_wanted(key));
        wanted.inspect(|(word, _)| word.used.set(true)).map(|(_, pair)| pair).collect()
    }

    /// The value of a key, as a number.
    pub fn number<T: FromStr>(&self, key: &str) -> Option<T> {
        self.text(key).map(|text| self.parsed(text))
    }

    fn parsed<T: FromStr>(&self, text: &str) -> T {
        text.parse().unwrap_or_else(|_| self.fail(&format!("{text:?} is no number")))
    }

    /// Fails the event.
    ///
    /// # Panics
    /// Always.
    pub fn fail(&self, why: &str) -> ! {
        panic!("{why}")
    }

    /// Checks at the end of an event that every word was used.
    pub(crate) fn finish(&self) {
        if let Some(word) = self.words.iter().find(|word| !word.used.get()) {
            self.fail(&format!("nobody asked for {:?}", word.text));
        }
    }
}
