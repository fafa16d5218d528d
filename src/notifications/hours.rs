//! When a user may be written to by other ways than the inbox (section 8.8): pauses, quiet hours and digests, by the clock on the user's own
//! wall. Changes to and from summer time are those of the IANA database.

use std::time::Duration;

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde_json::Value;

use crate::store::preferences::{Digest, Settings};
use crate::store::time::Timestamp;

/// As the settings name them, in the order of the week.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Spans of one day.
const MAX_SPANS: usize = 10;
const MINUTES_OF_A_DAY: u16 = 24 * 60;
/// The hour at which daily and weekly digests go.
const DIGEST_HOUR: i8 = 8;
/// Whoever has no hour that is not quiet is looked at again after that.
const LATER: Duration = Duration::from_secs(24 * 60 * 60);

/// A week's hours in which nobody is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuietHours([Vec<Span>; 7]);

/// Minutes of a day, the end not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    begin: u16,
    end: u16,
}

/// What is wrong with quiet hours, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`quiet_hours` has for mon, tue, wed, thu, fri, sat and sun up to {MAX_SPANS} pairs of times such as [\"22:00\",\"24:00\"], the \
     second later than the first; {0}"
)]
pub struct InvalidQuietHours(String);

impl QuietHours {
    /// Reads `{"mon":[["22:00","24:00"]],…}`; a day that is not named is not quiet.
    ///
    /// # Errors
    /// See [`InvalidQuietHours`].
    pub fn parse(value: &Value) -> Result<Self, InvalidQuietHours> {
        let wrong = |what: String| InvalidQuietHours(what);
        let days = value.as_object().ok_or_else(|| wrong("this is no object".to_owned()))?;
        let mut week = Self::default();
        for (name, spans) in days {
            let day = DAYS.iter().position(|day| day == name).and_then(|day| week.0.get_mut(day));
            let day = day.ok_or_else(|| wrong(format!("{name:?} is no day")))?;
            let spans = spans.as_array().filter(|spans| spans.len() <= MAX_SPANS);
            let spans = spans.ok_or_else(|| wrong(format!("{name} has none or too many")))?;
            for span in spans {
                day.push(Span::parse(span).ok_or_else(|| wrong(format!("{name} has {span}")))?);
            }
        }
        Ok(week)
    }

    /// The first moment from `at` on that is not quiet; none if there is no such one within a week.
    fn over(&self, zone: &TimeZone, at: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut at = at;
        for _ in 0..DAYS.len() * MAX_SPANS {
            match self.end(zone, at) {
                None => return Some(at),
                Some(end) => at = end,
            }
        }
        None
    }

    /// When the quiet span that `at` lies in ends, if it lies in one.
    fn end(&self, zone: &TimeZone, at: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let local = at.to_zoned_datetime(zone.clone());
        let minute = u16::try_from(local.hour()).ok()? * 60 + u16::try_from(local.minute()).ok()?;
        let spans = self.0.get(usize::try_from(local.weekday().to_monday_zero_offset()).ok()?)?;
        let end = spans.iter().filter(|span| (span.begin..span.end).contains(&minute)).map(|span| span.end).max()?;
        let midnight = local.date().to_datetime(jiff::civil::Time::midnight());
        let wall = midnight.checked_add(i64::from(end).minutes()).ok()?;
        Some(moment(zone, wall, at))
    }
}

impl Span {
    fn parse(value: &Value) -> Option<Self> {
        let [begin, end] = value.as_array()?.as_slice() else { return None };
        let span = Self { begin: minute(begin.as_str()?)?, end: minute(end.as_str()?)? };
        (span.begin < span.end).then_some(span)
    }
}

/// `HH:MM`, from 00:00 to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |part: &str| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= MINUTES_OF_A_DAY).then_some(minutes)
}

/// When a clock on the wall shows this, the first time after `after`; where it never does since an hour is left out, when that hour would be.
fn moment(zone: &TimeZone, wall: DateTime, after: jiff::Timestamp) -> jiff::Timestamp {
    let ambiguous = zone.to_ambiguous_timestamp(wall);
    let found = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible(),
        AmbiguousOffset::Fold { .. } => match ambiguous.earlier() {
            Ok(first) if first > after => Ok(first),
            _ => ambiguous.later(),
        },
        AmbiguousOffset::Gap { .. } => ambiguous
            .earlier()
            .map(|before| zone.following(before).next().map_or(before, |transition| transition.timestamp())),
    };
    // Out of the years that can be written, or not later: whoever asks goes on all the same.
    let next = after.checked_add(1.minute()).unwrap_or(after);
    found.map_or(next, |found| if found > after { found } else { next })
}

/// The zone of this name.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

/// From when on a user may be written to about what came into the inbox at `visible_at`; now, if that is over.
#[must_use]
pub fn due(settings: &Settings, zone: &TimeZone, visible_at: Timestamp, now: Timestamp) -> Timestamp {
    let digest = flush(settings.digest, zone, visible_at);
    let at = digest.max(now).max(settings.paused_until.unwrap_or(now));
    let quiet = settings.quiet_hours.as_ref().and_then(|hours| QuietHours::parse(hours).ok()).unwrap_or_default();
    match quiet.over(zone, civil(at)) {
        Some(over) => Timestamp::from_micros(over.as_microsecond()).max(at),
        None => at.after(LATER),
    }
}

/// When the digest goes that takes up what came at that time.
fn flush(digest: Digest, zone: &TimeZone, at: Timestamp) -> Timestamp {
    let then = civil(at);
    let local = then.to_zoned_datetime(zone.clone());
    let at_eight = |date: Date| moment(zone, date.at(DIGEST_HOUR, 0, 0, 0), then);
    let has_passed = |date: Date| local.datetime() >= date.at(DIGEST_HOUR, 0, 0, 0);
    let next = |date: Date, days: i64| date.checked_add(days.days()).unwrap_or(date);
    let flushed = match digest {
        Digest::Instant => then,
        Digest::Hourly => {
            let minutes = 60 - i64::from(local.minute());
            then.checked_add(minutes.minutes()).map_or(then, |end| {
                end.checked_sub(i64::from(local.second()).seconds())
                    .and_then(|end| end.checked_sub(i64::from(local.subsec_nanosecond()).nanoseconds()))
                    .unwrap_or(end)
            })
        }
        Digest::Daily => {
            let today = local.date();
            at_eight(if has_passed(today) { next(today, 1) } else { today })
        }
        Digest::Weekly => {
            let monday = next(local.date(), -i64::from(local.weekday().to_monday_zero_offset()));
            at_eight(if has_passed(monday) { next(monday, 7) } else { monday })
        }
    };
    Timestamp::from_micros(flushed.as_microsecond())
}

fn civil(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `when` is `now|visible`, both in UTC, or one time for both.
    fn due_at(settings: &Value, name: &str, when: &str) -> String {
        let settings: Settings = serde_json::from_value(settings.clone()).unwrap();
        let (now, visible) = when.split_once('|').unwrap_or((when, when));
        let [now, visible] = [now, visible].map(|text| text.parse().unwrap());
        due(&settings, &zone(name).unwrap(), visible, now).to_string().replace(".000000", "")
    }

    fn settings(quiet_hours: Value, digest: &str) -> Value {
        json!({ "timezone": null, "quiet_hours": quiet_hours, "paused_until": null, "digest": digest })
    }

    #[test]
    fn quiet_hours_end_by_the_users_clock() {
        let nights = json!({
            "mon": [["22:00", "24:00"]], "tue": [["00:00", "07:00"], ["22:00", "24:00"]],
            "sat": [["01:30", "02:30"]], "sun": [["01:30", "02:30"]],
        });
        for (name, now, expected, why) in [
            ("UTC", "2026-11-23T21:59:59Z", "2026-11-23T21:59:59Z", "a minute before them"),
            ("UTC", "2026-11-23T22:00:00Z", "2026-11-24T07:00:00Z", "over midnight, from one span into the next"),
            ("UTC", "2026-11-24T06:59:59Z", "2026-11-24T07:00:00Z", "until their end"),
            ("UTC", "2026-11-24T07:00:00Z", "2026-11-24T07:00:00Z", "which is none of them"),
            ("Europe/Vienna", "2026-11-23T21:30:00Z", "2026-11-24T06:00:00Z", "half past ten there"),
            ("America/New_York", "2026-11-23T23:00:00Z", "2026-11-23T23:00:00Z", "six in the evening there"),
            ("Asia/Kolkata", "2026-11-23T16:30:00Z", "2026-11-24T01:30:00Z", "ten at night there"),
            // In Vienna the hour from 2 to 3 is left out on 2026-03-29 and comes twice on 2026-10-25, both Sundays.
            ("Europe/Vienna", "2026-03-29T00:40:00Z", "2026-03-29T01:00:00Z", "half past two never comes: three does"),
            ("Europe/Vienna", "2026-10-24T23:40:00Z", "2026-10-25T00:30:00Z", "the first half past two"),
            ("Europe/Vienna", "2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z", "within the second time from two on"),
        ] {
            assert_eq!(due_at(&settings(nights.clone(), "instant"), name, now), expected, "{name} {now}: {why}");
        }
    }

    #[test]
    fn whoever_is_always_quiet_is_looked_at_again() {
        let always: Value = DAYS.iter().map(|day| ((*day).to_owned(), json!([["00:00", "24:00"]]))).collect();
        let settings = settings(always, "instant");
        assert_eq!(due_at(&settings, "UTC", "2026-11-23T12:00:00Z"), "2026-11-24T12:00:00Z");
    }

    #[test]
    fn a_digest_takes_up_what_came_before_it() {
        for (digest, name, when, expected) in [
            ("hourly", "UTC", "2026-11-23T12:00:00Z", "2026-11-23T13:00:00Z"),
            ("hourly", "UTC", "2026-11-23T12:59:59.5Z", "2026-11-23T13:00:00Z"),
            ("hourly", "Asia/Kolkata", "2026-11-23T12:10:00Z", "2026-11-23T12:30:00Z"),
            ("daily", "UTC", "2026-11-23T07:59:59Z", "2026-11-23T08:00:00Z"),
            ("daily", "UTC", "2026-11-23T08:00:00Z", "2026-11-24T08:00:00Z"),
            ("daily", "Europe/Vienna", "2026-03-28T12:00:00Z", "2026-03-29T06:00:00Z"),
            ("weekly", "UTC", "2026-11-24T09:00:00Z", "2026-11-30T08:00:00Z"),
            ("weekly", "UTC", "2026-11-30T07:00:00Z", "2026-11-30T08:00:00Z"),
            ("weekly", "UTC", "2026-11-30T09:00:00Z", "2026-12-07T08:00:00Z"),
            ("daily", "UTC", "2026-11-23T09:00:01Z|2026-11-23T07:00:00Z", "2026-11-23T09:00:01Z"),
        ] {
            assert_eq!(due_at(&settings(Value::Null, digest), name, when), expected, "{digest} {name} {when}");
        }
    }

    #[test]
    fn a_pause_holds_everything_back_and_quiet_hours_follow_it() {
        let mut paused = settings(json!({ "mon": [["10:00", "11:00"]] }), "instant");
        paused["paused_until"] = json!("2026-11-23T10:30:00Z");
        assert_eq!(due_at(&paused, "UTC", "2026-11-22T00:00:00Z"), "2026-11-23T11:00:00Z");
    }

    #[test]
    fn what_is_no_quiet_hours_is_named() {
        for (wrong, part) in [
            (json!([]), "no object"),
            (json!({ "monday": [] }), "monday"),
            (json!({ "mon": "all" }), "mon has none"),
            (json!({ "mon": [["07:00", "06:00"]] }), "07:00"),
            (json!({ "mon": [["07:00", "24:01"]] }), "24:01"),
            (json!({ "mon": [["7:00", "08:00"]] }), "7:00"),
            (json!({ "mon": [["07:60", "08:00"]] }), "07:60"),
            (json!({ "mon": [["07:00"]] }), "07:00"),
            (json!({ "mon": vec![["01:00", "02:00"]; 11] }), "too many"),
        ] {
            let told = QuietHours::parse(&wrong).unwrap_err().to_string();
            assert!(told.contains(part) && told.contains("22:00"), "{wrong}: {told}");
        }
    }
}
