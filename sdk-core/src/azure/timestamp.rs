//! Times of day in the documents of the services.

use crate::time::div_rem;

/// Returns the Unix seconds of a UTC time in the form `2020-04-10T05:24:22.4718526Z`, or `None` for another text.
///
/// The fraction is optional and is cut off; years run from 1970 to 9999, and a leap second counts as the second after.
#[must_use]
pub fn unix_secs(text: &str) -> Option<u64> {
    let (time, rest) = text.as_bytes().split_first_chunk::<{ FORM.len() }>()?;
    match rest {
        [b'Z'] => {}
        [b'.', fraction @ .., b'Z']
            if !fraction.is_empty() && fraction.len() <= 9 && fraction.iter().all(u8::is_ascii_digit) => {}
        _ => return None,
    }
    let mut before = [0_u32; 5];
    let mut places = before.iter_mut();
    let mut second = 0_u32;
    for (byte, form) in time.iter().zip(FORM) {
        // 0 to 9 for a digit where one belongs, and 0 for the right separator.
        let digit = u32::from(byte ^ form);
        if *form == b'0' && digit <= 9 {
            second = second.wrapping_mul(10).wrapping_add(digit);
        } else if digit == 0 {
            *places.next()? = second;
            second = 0;
        } else {
            return None;
        }
    }
    let [year, month, day, hour, minute] = before;
    // Of years that a hundred divides, sixteen divides those that four hundred do.
    let leap = if year % 100 == 0 { year % 16 == 0 } else { year % 4 == 0 };
    let days_of_month = match month {
        2 if leap => 29,
        2 => 28,
        _ => (month ^ (month >> 3)) & 1 | 30,
    };
    let in_range = year >= 1970
        && month.wrapping_sub(1) < 12
        && day.wrapping_sub(1) < days_of_month
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }

    // No sum below leaves its type: the year has four digits. Years count from March here, so that the day of a leap
    // year comes last: 153 days are in each five months from March or August on.
    let (year, month) =
        if month > 2 { (year, month.wrapping_sub(3)) } else { (year.wrapping_sub(1), month.wrapping_add(9)) };
    let leap_days = (year / 4).wrapping_sub(year / 100).wrapping_add(year / 400);
    let before = month.wrapping_mul(153).wrapping_add(2) / 5;
    let days = year.wrapping_mul(365).wrapping_add(leap_days).wrapping_add(before).wrapping_add(day.wrapping_sub(1));
    let of_day = hour.wrapping_mul(3600).wrapping_add(minute.wrapping_mul(60)).wrapping_add(second);
    Some(u64::from(days.wrapping_sub(DAYS_BEFORE_1970)).wrapping_mul(86_400).wrapping_add(u64::from(of_day)))
}

/// Returns the UTC time of so many milliseconds since 1970-01-01 00:00, in the form `2020-04-10T05:24:22.471Z`; times
/// after the year 9999 show as its end.
#[must_use]
pub fn utc(unix_ms: u64) -> [u8; 24] {
    let unix_ms = unix_ms.min(LAST_MS);
    let (secs, ms) = div_rem(unix_ms, 1000);
    let (half_days, of_half_day) = div_rem(secs, 43_200);
    let half_days = u32::try_from(half_days).unwrap_or(u32::MAX);
    let of_day = of_half_day.wrapping_add((half_days & 1).wrapping_mul(43_200));
    let day = half_days >> 1;
    // Years begin in March and eras of 400 years on 0000-03-01, so that the leap day is the last of its year.
    let day = day.wrapping_add(DAYS_BEFORE_1970);
    let (era, day) = (day / ERA_DAYS, day % ERA_DAYS);
    let leaps = (day / 1460).wrapping_sub(day / 36_524).wrapping_add(day / 146_096);
    let of_era = day.wrapping_sub(leaps) / 365;
    let year_day = day.wrapping_sub(of_era.wrapping_mul(365).wrapping_add(of_era / 4).wrapping_sub(of_era / 100));
    // Months from March on have 153 days in five.
    let from_march = year_day.wrapping_mul(5).wrapping_add(2) / 153;
    let day = year_day.wrapping_sub(from_march.wrapping_mul(153).wrapping_add(2) / 5).wrapping_add(1);
    let (month, next_year) =
        if from_march < 10 { (from_march.wrapping_add(3), 0) } else { (from_march.wrapping_sub(9), 1) };
    let year = era.wrapping_mul(400).wrapping_add(of_era).wrapping_add(next_year);

    let mut text = *b"0000-00-00T00:00:00.000Z";
    let fields = [
        (year, 0..4),
        (month, 5..7),
        (day, 8..10),
        (of_day / 3600, 11..13),
        (of_day / 60 % 60, 14..16),
        (of_day % 60, 17..19),
        (ms, 20..23),
    ];
    for (mut number, place) in fields {
        for digit in text.get_mut(place).unwrap_or_default().iter_mut().rev() {
            *digit = b'0'.wrapping_add((number % 10).to_le_bytes()[0]);
            number /= 10;
        }
    }
    text
}

/// The last millisecond of the year 9999.
const LAST_MS: u64 = 253_402_300_799_999;

/// Days of 400 years.
const ERA_DAYS: u32 = 146_097;

/// Days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u32 = 719_468;

/// The positions of digits and separators.
const FORM: &[u8; 19] = b"0000-00-00T00:00:00";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_utc_time_becomes_unix_seconds() {
        let table = [
            ("1970-01-01T00:00:00Z", 0),
            ("2020-04-10T05:24:22.4718526Z", 1_586_496_262),
            ("2020-02-29T23:59:59.9Z", 1_583_020_799),
            ("2020-03-01T00:00:00Z", 1_583_020_800),
            ("2000-12-31T12:00:00.000000001Z", 978_264_000),
            ("2038-01-19T03:14:08Z", 2_147_483_648),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ];
        for (text, seconds) in table {
            assert_eq!(unix_secs(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn unix_milliseconds_become_a_utc_time_and_back() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_586_496_262_471, "2020-04-10T05:24:22.471Z"),
            (1_583_020_799_009, "2020-02-29T23:59:59.009Z"),
            (1_583_020_800_000, "2020-03-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ];
        for (unix_ms, text) in table {
            assert_eq!(core::str::from_utf8(&utc(unix_ms)), Ok(text), "{unix_ms}");
        }
        // Every day of 400 years, each at another time of day.
        for day in 0..146_097 + 366_u64 {
            let secs = day * 86_400 + day * 7919 % 86_400;
            let text = utc(secs * 1000 + day % 1000);
            assert_eq!(unix_secs(core::str::from_utf8(&text).unwrap()), Some(secs), "{day}");
        }
    }

    #[test]
    fn any_other_text_is_no_time() {
        let table = [
            "",
            "Z",
            "T",
            "2020-04-10T05:24:22",
            "2020-04-10T05:24:22+00:00",
            "2020-04-10 05:24:22Z",
            "2020-04-10T05:24:22.Z",
            "2020-04-10T05:24:22.0123456789Z",
            "2021-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2020-13-01T00:00:00Z",
            "2020-00-01T00:00:00Z",
            "2020-01-00T00:00:00Z",
            "2020-04-31T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2020-04-10T24:00:00Z",
            "2020-04-10T05:60:00Z",
            "2020-04-10T05:24:61Z",
            "2020-04-10T05:24:+1Z",
            "20-04-10T05:24:22Z",
            "2020-4-10T05:24:22Z",
            "2020-04-10T05:24:22:00Z",
            "\u{e9}020-04-10T05:24:22Z",
        ];
        for text in table {
            assert_eq!(unix_secs(text), None, "{text}");
        }
    }
}
