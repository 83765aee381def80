//! SPDX licence expressions, as far as crates use them.

/// Whether `expression` can be satisfied with licences that `allowed` accepts. `OR` (also written
/// `/`) needs one side, `AND` both; `X WITH Y` is a licence of its own. An expression that does
/// not parse is satisfied by nothing.
pub fn is_satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    parser.any_of() == Some(true) && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn any_of(&mut self) -> Option<bool> {
        let mut holds = self.all_of()?;
        while self.take("OR") {
            holds |= self.all_of()?;
        }
        Some(holds)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut holds = self.one()?;
        while self.take("AND") {
            holds &= self.one()?;
        }
        Some(holds)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let holds = self.any_of()?;
            return self.take(")").then_some(holds);
        }
        let licence = self
            .next()
            .filter(|word| !["OR", "AND", "WITH", ")"].contains(word))?;
        if self.take("WITH") {
            let exception = self.next()?;
            return Some((self.allowed)(&format!("{licence} WITH {exception}")));
        }
        Some((self.allowed)(licence))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.next();
        }
        found
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn satisfied(expression: &str) -> bool {
        let allowed = ["MIT", "Apache-2.0", "ISC", "Unicode-3.0"];
        is_satisfied(expression, &|licence| allowed.contains(&licence))
    }

    #[test]
    fn one_side_of_or_and_both_sides_of_and_must_be_allowed() {
        assert!(satisfied("MIT OR GPL-3.0"));
        assert!(satisfied("Unlicense/MIT"));
        assert!(satisfied("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(satisfied("ISC AND (Apache-2.0 OR OpenSSL) AND MIT"));
        assert!(!satisfied("MIT AND GPL-3.0"));
        assert!(!satisfied("GPL-3.0 OR MPL-2.0"));
    }

    #[test]
    fn and_binds_closer_than_or() {
        assert!(satisfied("MIT OR GPL-3.0 AND GPL-2.0"));
        assert!(!satisfied("GPL-3.0 OR MIT AND GPL-2.0"));
    }

    #[test]
    fn an_exception_makes_another_licence() {
        assert!(!satisfied("Apache-2.0 WITH LLVM-exception"));
        assert!(satisfied("Apache-2.0 WITH LLVM-exception OR MIT"));
    }

    #[test]
    fn what_does_not_parse_is_not_allowed() {
        for expression in [
            "",
            "MIT OR",
            "(MIT",
            "MIT)",
            "AND",
            "MIT Apache-2.0",
            "MIT OR )",
        ] {
            assert!(!satisfied(expression), "{expression:?}");
        }
    }
}
