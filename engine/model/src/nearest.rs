//! The names that somebody may have meant.

/// Most names that are suggested for an unknown one.
const SUGGESTIONS_MAX: usize = 5;
/// Least likeness of a name that is suggested where there are many.
const LIKENESS_MIN: f64 = 0.3;

/// Least likeness of the one name that was surely meant.
const LIKENESS_MEANT: f64 = 0.6;

/// The name that was surely meant by `name`, if one of `names` is so much like it.
pub fn meant(name: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let name = name.to_lowercase();
    names
        .into_iter()
        .map(|candidate| (likeness(&name, &candidate), candidate))
        .filter(|(score, _)| *score >= LIKENESS_MEANT)
        .max_by(|(left, left_name), (right, right_name)| {
            left.total_cmp(right).then(right_name.cmp(left_name))
        })
        .map(|(_, candidate)| candidate)
}

/// The names most like `name`, best first; all of them if they are few.
pub fn nearest(name: &str, names: Vec<String>) -> Vec<String> {
    let name = name.to_lowercase();
    let mut scored: Vec<(f64, String)> = names
        .into_iter()
        .map(|candidate| (likeness(&name, &candidate), candidate))
        .collect();
    scored.sort_by(|(left, left_name), (right, right_name)| {
        right.total_cmp(left).then(left_name.cmp(right_name))
    });
    let few = scored.len() <= SUGGESTIONS_MAX;
    scored
        .into_iter()
        .filter(|(score, _)| few || *score > LIKENESS_MIN)
        .take(SUGGESTIONS_MAX)
        .map(|(_, name)| name)
        .collect()
}

/// How alike two names are, from 0 to 1: by the pairs of letters that they share, which finds words
/// in another order, or by the letters that differ, which finds slips in short names.
fn likeness(left: &str, right: &str) -> f64 {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    shared_pairs(&left, &right).max(slips(&left, &right))
}

/// Share of common pairs of letters (Dice's coefficient).
fn shared_pairs(left: &[char], right: &[char]) -> f64 {
    let mut others: Vec<&[char]> = right.windows(2).collect();
    let total = left.windows(2).len() + others.len();
    if total == 0 {
        return 0.0;
    }
    let mut common = 0_u32;
    for pair in left.windows(2) {
        if let Some(index) = others.iter().position(|other| *other == pair) {
            others.swap_remove(index);
            common += 1;
        }
    }
    f64::from(2 * common) / total as f64
}

/// Share of letters that are right, if not more than every third is wrong; 0 otherwise.
fn slips(left: &[char], right: &[char]) -> f64 {
    let longest = left.len().max(right.len());
    let distance = distance(left, right);
    if longest == 0 || distance * 3 > longest.max(3) {
        return 0.0;
    }
    1.0 - distance as f64 / longest as f64
}

/// Least number of letters to insert, remove, replace, or swap with the next.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != other);
            let mut least = replaced.min(last[column + 1] + 1).min(next[column] + 1);
            let is_swapped =
                row > 0 && column > 0 && left[row - 1] == *other && right[column - 1] == *letter;
            if is_swapped {
                least = least.min(before[column - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        [
            "readings",
            "diagnostics",
            "rejects",
            "alerts",
            "tyres",
            "fuel",
        ]
        .map(String::from)
        .to_vec()
    }

    #[test]
    fn similar_names_are_suggested_first() {
        for (name, meant) in [
            ("reading", "readings"),
            ("Diagnostic", "diagnostics"),
            ("tyers", "tyres"),
            ("feul", "fuel"),
        ] {
            assert_eq!(nearest(name, names()).first().unwrap(), meant);
        }
        assert!(nearest("zzzz", names()).is_empty());
    }

    #[test]
    fn one_name_is_meant_only_if_it_is_much_alike() {
        let two = || vec!["temperature".to_owned(), "rpm".to_owned()];
        assert_eq!(meant("temprature", two()).as_deref(), Some("temperature"));
        assert_eq!(meant("Rmp", two()).as_deref(), Some("rpm"));
        assert_eq!(meant("colour", two()), None);
        assert_eq!(meant("", two()), None);
    }

    #[test]
    fn few_names_are_all_suggested() {
        assert_eq!(
            nearest("zzzz", vec!["readings".into(), "diagnostics".into()]).len(),
            2
        );
    }

    #[test]
    fn distances_count_slips() {
        let distance = |left: &str, right: &str| {
            let letters = |text: &str| text.chars().collect::<Vec<char>>();
            distance(&letters(left), &letters(right))
        };
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("tyers", "tyres"), 1);
        assert_eq!(distance("reading", "readings"), 1);
        assert_eq!(distance("fuel", "tyres"), 4);
    }
}
