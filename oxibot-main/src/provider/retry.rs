//! When a request is repeated, and how long we wait before. Pure: the clock and the dice are arguments.

use std::time::{Duration, SystemTime};

use super::error::ProviderError;
use crate::backoff::backoff;

/// How patient we are with a provider.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection to stand.
    pub connect: Duration,
    /// Between two pieces of an answer, and before the first. A server on this machine gets four times that, because
    /// it reads a long conversation slowly before it says anything.
    pub idle: Duration,
    /// For the whole answer, all retries and waits included.
    pub total: Duration,
    /// Requests for one answer.
    pub attempts: u32,
    /// The first wait; each further one is twice as long.
    pub first_wait: Duration,
    /// The longest wait. A vendor that asks for more is not waited for: the error says how long.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            // Well below the time of a turn, so that it is the provider's error that is shown, and not the turn's.
            total: Duration::from_secs(240),
            attempts: 4,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// How long to wait before the next request; none when there is to be none. `made` requests failed so far, the
    /// last with `error`; `left` is what remains of the whole time; `dice` is any number.
    pub(crate) fn wait(
        &self,
        made: u32,
        error: &ProviderError,
        left: Duration,
        dice: u64,
    ) -> Option<Duration> {
        if made >= self.attempts || !error.is_transient() {
            return None;
        }
        let jittered = backoff(self.first_wait, self.longest_wait, made.saturating_sub(1), dice);
        let wait = match error.retry_after() {
            // A little more than asked: earlier is refused again.
            Some(asked) => asked.saturating_add(jittered / 8),
            None => jittered,
        };
        let bound = error.retry_after().map_or(self.longest_wait, |asked| asked.max(self.longest_wait));
        (wait.min(bound) < left && error.retry_after().is_none_or(|asked| asked <= self.longest_wait))
            .then_some(wait)
    }
}

/// Reads a `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        if seconds.is_nan() {
            return None;
        }
        return Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    }
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(parse_http_date(text)?))?;
    // A date that has passed means now.
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970. The two obsolete forms of the RFC are not read: no vendor
/// sends them, and without the header the ordinary backoff applies.
fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_weekday, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let day: i64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let year: i64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let in_range = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    if words.next() != Some("GMT") || !in_range {
        return None;
    }
    // Days from civil, as in Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms": years begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted / 400;
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(retry_after: Option<u64>) -> ProviderError {
        ProviderError::RateLimited {
            provider: "p".to_owned(),
            retry_after: retry_after.map(Duration::from_secs),
            detail: String::new(),
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn waits_double_with_jitter_and_end_after_the_last_attempt() {
        let patience = Patience::default();
        for dice in [0, 499, 999] {
            for (made, full) in [(1, 1.0), (2, 2.0), (3, 4.0)] {
                let wait = patience.wait(made, &limited(None), HOUR, dice).unwrap().as_secs_f64();
                assert!((full / 2.0..=full).contains(&wait), "{made} {wait}");
            }
        }
        assert_eq!(patience.wait(4, &limited(None), HOUR, 0), None);
    }

    #[test]
    fn waits_are_bounded_and_overflow_nothing() {
        let patience = Patience { attempts: u32::MAX, ..Patience::default() };
        assert!(patience.wait(4_000_000, &limited(None), HOUR, 999).unwrap() <= patience.longest_wait);
    }

    #[test]
    fn retry_after_is_honoured_but_not_beyond_our_patience_or_the_deadline() {
        let patience = Patience::default();
        let wait = patience.wait(1, &limited(Some(7)), HOUR, 500).unwrap();
        assert!((7.0..8.0).contains(&wait.as_secs_f64()), "{wait:?}");
        assert_eq!(patience.wait(1, &limited(Some(61)), HOUR, 0), None);
        assert_eq!(patience.wait(1, &limited(Some(7)), Duration::from_secs(5), 0), None);
    }

    #[test]
    fn errors_that_repeat_themselves_are_not_retried() {
        let patience = Patience::default();
        let refused =
            ProviderError::BadRequest { provider: "p".to_owned(), status: 400, detail: String::new() };
        assert_eq!(patience.wait(1, &refused, HOUR, 0), None);
    }

    #[test]
    fn dates_are_read_and_nonsense_is_not() {
        let epoch = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(parse_retry_after(date, epoch(784_111_770)), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after(date, epoch(900_000_000)), Some(Duration::ZERO));
        assert_eq!(parse_http_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(parse_http_date("Fri, 01 Jan 2100 00:00:00 GMT"), Some(4_102_444_800));
        assert_eq!(parse_retry_after("0.5", epoch(0)), Some(Duration::from_millis(500)));
        assert_eq!(parse_retry_after("-3", epoch(0)), Some(Duration::ZERO));
        for nonsense in
            ["", "soon", "NaN", "inf", "1e300", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT"]
        {
            assert_eq!(parse_retry_after(nonsense, epoch(0)), None, "{nonsense}");
        }
    }
}
