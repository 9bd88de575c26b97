//! What a verification found, in one sentence.

/// A sentence names no more than this; the rest is counted.
const NAMED_MAX: usize = 5;

/// Says what is damaged in `what`: the first findings by name, and how many more there are.
pub fn sentence(what: &str, total: u64, named: &[String]) -> String {
    let shown = &named[..named.len().min(NAMED_MAX)];
    let rest = total.saturating_sub(shown.len() as u64);
    let mut text = format!("the {what} is damaged: {}", shown.join("; "));
    if rest > 0 {
        text.push_str(&format!("; and {rest} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_findings_are_named_and_many_are_counted() {
        let named: Vec<String> = (0..7).map(|n| format!("pack {n}")).collect();
        assert_eq!(sentence("backup", 1, &named[..1]), "the backup is damaged: pack 0");
        let many = sentence("repository", 40, &named);
        assert!(many.ends_with("pack 4; and 35 more"), "{many}");
    }
}
