# One patient's night -> one small value: how much of it was measured, what stands out, what is doubtful.
#
# `.` is the patient {id, tz, hr_base, hr_mad} with `pages`, the list of the vendor's answers (see
# `into: "pages"` in the job file). Gives nothing when the watch measured nothing: the patient is then
# counted as `empty`, which is no failure.
#
# The limits below are the only ones; report.html says them in words.

{
  mod_z: 3.5,                 # of the night's median heart rate against the personal baseline
  minutes: 120,               # fewer minutes with a heart rate: no judgement against the baseline
  systolic: 180,              # one reading is enough
  spo2: 90, spo2_minutes: 10, # below, without a break, for so many minutes
  fever: 38.3, fever_n: 2,    # so many readings in a row: one alone may be a sunlit sensor
} as $limits |

# What a living person can have. Outside is an artefact: counted as data quality, never an alarm.
# A third number is what the sensor sends when it has no value: 255 is all that fits in its byte.
{
  heart_rate: [20, 300, 255], resp_rate: [3, 70], spo2: [50, 100], skin_temp: [25, 45],
  systolic: [40, 300], diastolic: [20, 200],
} as $plausible |

def tidy: if . == null then null elif . == floor then floor else . end;   # 61.0 is written as 61
def hundredths: if . == null then null else . * 100 | round / 100 | tidy end;

# The minutes of samples, and their values.
def minutes: [.[][0]];
def values: [.[][1]];

# [[minute, value]..] in the order of time. A minute sent twice counts once, and the later answer wins.
def in_order: if minutes == (minutes | unique) then . else group_by(.[0]) | map(.[-1]) end;

# Is it a number within these two? (jq orders null < numbers < texts: whatever came instead of one is not.)
def fits($range): . >= $range[0] and . <= $range[1] and . != $range[2];

# Samples as they came -> {good: [[minute, value]..] in order, odd: [the values that cannot be]}.
# One look at the lowest and the highest value is enough for nearly everybody. A null is a gap.
def sift($range):
  values as $values
  | if $values == [] or ($values | (min | fits($range)) and (max | fits($range) and . < ($range[2] // 1000)))
    then {good: in_order, odd: []}
    else {good: (map(select(.[1] | fits($range))) | in_order), odd: [$values[] | select(. != null and (fits($range) | not))]}
    end;

# Does a time say its zone, Z or +08:00?
def zoned: endswith("Z") or (.[-6:-5] | . == "+" or . == "-");

# Longest stretch, in minutes, of neighbours for which `f` holds. A gap of more than 15 minutes ends it.
# `f` is a limit: nearly everybody's lowest and highest value are on the same side of it.
def longest(f):
  if values | any(min, max; . != null and f) | not then {minutes: 0, n: 0} else
  reduce .[] as $s (
    {best: {minutes: 0, n: 0}, from: null, last: null, n: 0};
    if ($s[1] | f) then
      (if .from == null or $s[0] - .last > 15 then .from = $s[0] | .n = 0 else . end)
      | .n += 1 | .last = $s[0]
      | if .n > .best.n then .best = {minutes: (.last - .from), n: .n} else . end
    else .from = null end
  ) | .best
  end;

# At most 48 medians of 10 minutes (of more where the night is longer), null where nothing was measured.
def curve:
  if length == 0 then {from: 0, step: 10, bpm: []}
  else
    minutes as $at | values as $values
    | ($at[0] / 10 | floor * 10) as $from
    | ([10, (($at[-1] - $from + 1) / 48 | ceil)] | max) as $step
    | def place($minute): $at | bsearch($minute) | if . < 0 then -1 - . else . end;
    {
      from: $from,
      step: $step,
      bpm: [range(0; 48) | $values[place($from + . * $step):place($from + (. + 1) * $step)] | median | tidy],
    }
  end;

# An answer that is no night of vitals must be a failure: as an empty list it would pass for "no data".
if (.pages | length) == 0 or any(.pages[]; type != "object" or (has("heart_rate") | not))
then
  error("the answer of the vendor is not a night of vitals: it has no heart_rate")
elif .id as $id | any(.pages[]; .patient != $id)
then
  error("the answer of the vendor is about another patient")
else . end

| . as $patient
# The lists of all pages, one after the other: several pages are one night.
| def pages($sign): [$patient.pages[][$sign] // [] | .[]];
  pages("blood_pressure") as $pressures
| (reduce ("heart_rate", "resp_rate", "spo2", "skin_temp") as $sign ({}; .[$sign] = pages($sign))) as $raw
| select($pressures != [] or any($raw[]; . != []))      # nothing measured: nothing given

| ($raw | with_entries(.key as $sign | .value |= sift($plausible[$sign]))) as $vitals
| def possible: (.[1] | fits($plausible.systolic)) and (.[2] | fits($plausible.diastolic));
  ($pressures | map(select(possible)) | max_by(.[1])) as $highest

# The night against the patient's own baseline: 0.6745 * (median - baseline) / MAD.
| ($vitals.heart_rate.good | minutes | map(floor) | unique | length) as $minutes
| ($vitals.heart_rate.good | values | median | tidy) as $median
| ($patient | (.hr_base | type) == "number" and (.hr_mad | type) == "number" and .hr_mad > 0) as $has_baseline
| (if $has_baseline and $minutes >= $limits.minutes
   then 0.6745 * ($median - $patient.hr_base) / $patient.hr_mad | hundredths
   else null end) as $z

| ($vitals.spo2.good | longest(. < $limits.spo2)) as $low
| ($vitals.skin_temp.good | longest(. >= $limits.fever)) as $hot

# What stands out. `select` gives nothing where the condition does not hold.
| [
    (select($z != null and $z > $limits.mod_z) | {reason: "tachycardia", bpm: $median}),
    (select($z != null and $z < - $limits.mod_z) | {reason: "bradycardia", bpm: $median}),
    (select($highest != null and $highest[1] >= $limits.systolic)
     | {reason: "bp_crisis", systolic: $highest[1], diastolic: $highest[2], at: $highest[0]}),
    (select($low.minutes >= $limits.spo2_minutes)
     | {reason: "low_spo2", lowest: ($vitals.spo2.good | values | min), minutes: $low.minutes}),
    (select($hot.n >= $limits.fever_n) | {reason: "fever", highest: ($vitals.skin_temp.good | values | max)})
  ] as $findings

# What is doubtful: never a reason for an alarm.
| [
    ($vitals | to_entries[] | .key as $sign | .value.odd
     | select(. != []) | {what: "implausible_\($sign)", n: length, values: (unique | .[:3])}),
    ($pressures | map(select(possible | not) | "\(.[1])/\(.[2])")
     | select(. != []) | {what: "implausible_blood_pressure", n: length, values: (unique | .[:3])}),
    ($pressures | map(.[0] | tostring | select(zoned | not))
     | select(. != []) | {what: "naive_times", n: length}),
    (select($minutes < $limits.minutes) | {what: "short_night", n: $minutes}),
    (select($has_baseline | not) | {what: "no_baseline"})
  ] as $doubts

| {
    key: $key,
    tz: $patient.tz,
    minutes: $minutes,
    median_hr: $median,
    hr_base: $patient.hr_base,
    hr_mad: $patient.hr_mad,
    mod_z: $z,
    reasons: [$findings[].reason],
    findings: $findings,
    data_quality: $doubts,
    curve: ($vitals.heart_rate.good | curve),
  }
