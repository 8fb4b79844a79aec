//! A month in UTC.

use std::fmt;
use std::str::FromStr;

use riposte_protocol::time::Timestamp;

/// A month, such as `2026-11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    year: u16,
    number: u8,
}

/// The text is no month.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a month is a year and a number, such as 2026-11")]
pub struct InvalidMonth;

impl Month {
    /// Its first instant.
    pub fn since(self) -> Timestamp {
        // Only a year after 9998 has no such instant, and no text parses to one.
        format!("{self}-01T00:00:00Z").parse().unwrap_or(Timestamp::MAX)
    }

    /// The first instant after it.
    pub fn until(self) -> Timestamp {
        let Self { year, number } = self;
        let next = if number == 12 { Self { year: year + 1, number: 1 } } else { Self { year, number: number + 1 } };
        next.since()
    }
}

impl FromStr for Month {
    type Err = InvalidMonth;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_number = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        let (year, number) = text.split_once('-').ok_or(InvalidMonth)?;
        if !is_number(year, 4) || !is_number(number, 2) {
            return Err(InvalidMonth);
        }
        let month =
            Self { year: year.parse().map_err(|_| InvalidMonth)?, number: number.parse().map_err(|_| InvalidMonth)? };
        if (1..=12).contains(&month.number) && (1970..=9998).contains(&month.year) {
            Ok(month)
        } else {
            Err(InvalidMonth)
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_one_begins() {
        let bounds =
            |text: &str| text.parse::<Month>().map(|month| (month.since().to_string(), month.until().to_string()));
        assert_eq!(bounds("2026-11"), Ok(("2026-11-01T00:00:00.000Z".into(), "2026-12-01T00:00:00.000Z".into())));
        assert_eq!(bounds("2026-12"), Ok(("2026-12-01T00:00:00.000Z".into(), "2027-01-01T00:00:00.000Z".into())));
        assert_eq!(bounds("9998-12").map(|(_, until)| until), Ok("9999-01-01T00:00:00.000Z".into()));
        for wrong in
            ["", "2026", "2026-00", "2026-13", "2026-1", "26-11", "+026-11", "2026-+1", "2026-11-01", "9999-01"]
        {
            assert_eq!(bounds(wrong), Err(InvalidMonth), "{wrong}");
        }
    }
}
