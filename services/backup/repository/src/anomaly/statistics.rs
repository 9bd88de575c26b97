//! A robust baseline: a few outliers change little.

use super::Ratio;

/// Makes the median of distances comparable with a standard deviation (Hampel 1974; NIST/SEMATECH e-Handbook 1.3.5.6).
const NORMAL: f64 = 1.4826;

/// The median of some values, and their deviation from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Baseline {
    pub(super) median: Ratio,
    deviation: f64,
}

impl Baseline {
    /// `None` of fewer values than `least`.
    pub(super) fn of(values: impl Iterator<Item = Ratio>, least: u16) -> Option<Baseline> {
        let mut values: Vec<f64> = values.map(Ratio::value).collect();
        if values.len() < usize::from(least).max(1) {
            return None;
        }
        let middle = median(&mut values);
        for value in &mut values {
            *value = (*value - middle).abs();
        }
        Some(Baseline { median: Ratio(middle), deviation: NORMAL * median(&mut values) })
    }

    /// The largest value that is not unusual.
    pub(super) fn limit(&self, deviations: u16, floor: Ratio) -> Ratio {
        Ratio((self.median.0 + f64::from(deviations) * self.deviation).max(floor.0))
    }
}

/// The median of some values, at least one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(values: &[f64]) -> Option<Baseline> {
        Baseline::of(values.iter().map(|&value| Ratio(value)), 3)
    }

    #[test]
    fn few_values_say_nothing() {
        assert_eq!(usual(&[0.1, 0.2]), None);
        assert!(usual(&[0.1, 0.2, 0.3]).is_some());
    }

    #[test]
    fn wild_values_in_the_minority_change_little() {
        let ordinary = usual(&[0.02, 0.03, 0.01, 0.02, 0.03]).unwrap();
        let wild = usual(&[0.02, 0.03, 0.01, 0.02, 0.03, 1.0, 0.9]).unwrap();
        assert!((ordinary.median.0 - 0.02).abs() < 1e-9);
        assert!((wild.median.0 - 0.03).abs() < 1e-9);
        assert!(wild.limit(8, Ratio(0.0)).0 < 0.2, "{wild:?}");
    }

    #[test]
    fn a_machine_that_always_changes_alike_is_held_to_the_floor() {
        let usual = usual(&[0.02; 5]).unwrap();
        assert_eq!(usual.limit(8, Ratio(0.2)), Ratio(0.2));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(&mut [4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
    }
}
