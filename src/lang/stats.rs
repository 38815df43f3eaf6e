//! Robust statistics that jq filters have built in: median, MAD, modified z-score, quantile, Hampel filter, EWMA.
//!
//! Pure functions on finite numbers; `jq` makes natives of them. They judge nothing: limits and scores stand in job files.

/// The middle of the values, the mean of the two middle ones where their number is even; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let n = sorted.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(sorted[n / 2]),
        // Halves first: the sum of two large values would be infinite.
        _ => Some(sorted[n / 2 - 1] / 2.0 + sorted[n / 2] / 2.0),
    }
}

/// The median of the absolute deviations from the median, not scaled; `None` of nothing.
pub fn mad(values: &[f64]) -> Option<f64> {
    let center = median(values)?;
    let deviations: Vec<f64> = values.iter().map(|x| (x - center).abs()).collect();
    median(&deviations)
}

/// The modified z-score of `x` against a baseline: 0.6745 (x - median) / MAD. Scores beyond 3.5 are taken for outliers.
/// `None` when the baseline is empty or its MAD is 0 (more than half of its values are equal): nothing can be judged.
///
/// Iglewicz and Hoaglin (1993), "How to Detect and Handle Outliers", ASQC; NIST/SEMATECH e-Handbook 1.3.5.17.
pub fn mod_z(baseline: &[f64], x: f64) -> Option<f64> {
    let spread = mad(baseline)?;
    if spread == 0.0 {
        return None;
    }
    Some(0.6745 * (x - median(baseline)?) / spread)
}

/// The quantile `q` between 0 and 1, linear between the two nearest values (type 7 of Hyndman and Fan 1996, "Sample
/// Quantiles in Statistical Packages", The American Statistician 50; the default of R and NumPy). `None` of nothing or
/// for a `q` out of range.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    if values.is_empty() || !(0.0..=1.0).contains(&q) {
        return None;
    }
    let sorted = sorted(values);
    let place = q * (sorted.len() - 1) as f64;
    let low = place.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    let share = place - low as f64;
    Some(sorted[low] * (1.0 - share) + sorted[high] * share)
}

/// True for each value that is farther than `k` x 1.4826 MAD from the median of the `window` values around it. At the
/// ends the window is cut to what there is. Where the MAD is 0 any value off the median is one.
///
/// Hampel (1974), "The Influence Curve and Its Role in Robust Estimation", JASA 69; the name as in Davies and Gather
/// (1993), "The Identification of Multiple Outliers", JASA 88. 1.4826 makes the MAD of a normal distribution its sigma.
pub fn hampel(values: &[f64], window: usize, k: f64) -> Vec<bool> {
    let half = window / 2;
    let judge = |(i, x): (usize, &f64)| {
        let around = &values[i.saturating_sub(half)..(i.saturating_add(half).saturating_add(1)).min(values.len())];
        match (median(around), mad(around)) {
            (Some(center), Some(spread)) => (x - center).abs() > k * 1.4826 * spread,
            _ => false,
        }
    };
    values.iter().enumerate().map(judge).collect()
}

/// The exponentially weighted moving average: the first value as it is, then lambda x + (1 - lambda) of the one before.
///
/// Roberts (1959), "Control Chart Tests Based on Geometric Moving Averages", Technometrics 1; NIST/SEMATECH e-Handbook
/// 6.3.2.4, which recommends a lambda of 0.2 to 0.3.
pub fn ewma(values: &[f64], lambda: f64) -> Vec<f64> {
    let mut last = None;
    let step = |x: &f64| {
        let now = last.map_or(*x, |before: f64| lambda * x + (1.0 - lambda) * before);
        last = Some(now);
        now
    };
    values.iter().map(step).collect()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_ones() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[f64::MAX, f64::MAX]), Some(f64::MAX));
    }

    #[test]
    fn the_mad_is_not_scaled() {
        // Median 2; deviations 1 1 0 0 2 4 7, sorted 0 0 1 1 2 4 7.
        assert_eq!(mad(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(1.0));
        assert_eq!(mad(&[5.0]), Some(0.0));
        assert_eq!(mad(&[]), None);
    }

    #[test]
    fn the_modified_z_score_is_that_of_iglewicz_and_hoaglin() {
        // Median 60, MAD 1: 0.6745 * 10 / 1.
        let baseline = [58.0, 59.0, 60.0, 61.0, 62.0];
        assert_eq!(mod_z(&baseline, 70.0), Some(6.745));
        assert_eq!(mod_z(&baseline, 60.0), Some(0.0));
        assert!(mod_z(&baseline, 50.0).is_some_and(|z| z == -6.745));
        assert_eq!(mod_z(&[60.0, 60.0, 60.0, 61.0], 70.0), None);
        assert_eq!(mod_z(&[], 70.0), None);
    }

    #[test]
    fn a_quantile_is_linear_between_the_nearest_values() {
        let values = [10.0, 20.0, 30.0, 40.0];
        assert_eq!(quantile(&values, 0.0), Some(10.0));
        assert_eq!(quantile(&values, 1.0), Some(40.0));
        assert_eq!(quantile(&values, 0.5), Some(25.0));
        // Place 0.25 * 3 = 0.75 between 10 and 20.
        assert_eq!(quantile(&values, 0.25), Some(17.5));
        assert_eq!(quantile(&values, 1.5), None);
        assert_eq!(quantile(&values, f64::NAN), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_hampel_filter_marks_the_spike() {
        let values = [60.0, 61.0, 60.0, 110.0, 61.0, 60.0, 61.0];
        assert_eq!(hampel(&values, 5, 3.0), [false, false, false, true, false, false, false]);
        assert_eq!(hampel(&[], 7, 3.0), Vec::<bool>::new());
        assert_eq!(hampel(&[1.0, 2.0], usize::MAX, 3.0), [false, false]);
    }

    #[test]
    fn the_ewma_begins_with_the_first_value() {
        assert_eq!(ewma(&[10.0, 20.0, 20.0], 0.5), [10.0, 15.0, 17.5]);
        assert_eq!(ewma(&[], 0.5), Vec::<f64>::new());
    }
}
