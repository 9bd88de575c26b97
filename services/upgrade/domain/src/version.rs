//! The order of versions: that of semantic versioning (https://semver.org, 11).

use semver::Version;

/// Whether a text is a semantic version.
pub(crate) fn is_version(text: &str) -> bool {
    Version::parse(text).is_ok()
}

/// The highest of some versions. Text that is no version counts for nothing.
pub fn highest_version<'a>(versions: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let parsed = versions.into_iter().filter_map(|text| Some((Version::parse(text).ok()?, text)));
    parsed.max_by(|(one, _), (other, _)| one.cmp_precedence(other)).map(|(_, text)| text)
}

/// Whether a version comes before another. What follows a `+` decides nothing.
pub fn is_older_version(version: &str, other: &str) -> bool {
    match (Version::parse(version), Version::parse(other)) {
        (Ok(version), Ok(other)) => version.cmp_precedence(&other).is_lt(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers_and_a_candidate_comes_before_its_release() {
        let ascending = ["0.1.0", "0.2.0-rc.1", "0.2.0-rc.2", "0.2.0", "0.10.0", "1.0.0"];
        for (index, version) in ascending.iter().enumerate() {
            for other in &ascending[index + 1..] {
                assert!(is_older_version(version, other), "{version} {other}");
                assert!(!is_older_version(other, version), "{other} {version}");
                assert_eq!(highest_version([*version, "nonsense", *other, "0.0.1"]), Some(*other));
            }
        }
        assert!(!is_older_version("0.2.0", "0.2.0+5") && !is_older_version("0.2.0+5", "0.2.0"));
        assert_eq!(highest_version(["1.0"]), None);
    }
}
