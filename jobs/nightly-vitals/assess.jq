# One patient's night -> one small value: how much of it was measured, what stands out, what is doubtful.
#
# `.` is the patient {id, tz, hr_base, hr_mad} with `pages`, the list of the vendor's answers (see
# `into: "pages"` in the job file). Gives nothing when the watch measured nothing: the patient is then
# counted as `empty`, which is no failure.
#
# The limits below are the only ones; report.html says them in words.

def limits: {
  mod_z: 3.5,                 # of the night's median heart rate against the personal baseline
  minutes: 120,               # fewer minutes with a heart rate: no judgement against the baseline
  systolic: 180,              # one reading is enough
  spo2: 90, spo2_minutes: 10, # below, without a break, for so many minutes
  fever: 38.3, fever_n: 2,    # so many readings in a row: one alone may be a sunlit sensor
};

# What a living person can have. Outside is an artefact: counted as data quality, never an alarm.
def plausible: {
  heart_rate: [20, 300], resp_rate: [3, 70], spo2: [50, 100], skin_temp: [25, 45],
  systolic: [40, 300], diastolic: [20, 200],
};

def tidy: if . == null then null elif . == floor then floor else . end;   # 61.0 is written as 61
def hundredths: if . == null then null else . * 100 | round / 100 | tidy end;

# Is the number (or whatever came instead of one) plausible for this vital sign?
def fits($sign): plausible[$sign] as [$low, $high] | type == "number" and . >= $low and . <= $high;

# [[minute, value]..] in the order of time. A minute sent twice counts once, and the later answer wins.
def in_order: group_by(.[0]) | map(.[-1]);

# Longest stretch, in minutes, of neighbours for which `f` holds. A gap of more than 15 minutes ends it.
def longest(f):
  reduce .[] as $s (
    {best: {minutes: 0, n: 0}, from: null, last: null, n: 0};
    if ($s[1] | f) then
      (if .from == null or $s[0] - .last > 15 then .from = $s[0] | .n = 0 else . end)
      | .n += 1 | .last = $s[0]
      | if .n > .best.n then .best = {minutes: (.last - .from), n: .n} else . end
    else .from = null end
  ) | .best;

# At most 48 medians of 10 minutes (of more where the night is longer), null where nothing was measured.
def curve:
  if length == 0 then {from: 0, step: 10, bpm: []}
  else
    (.[0][0] / 10 | floor * 10) as $from
    | ([10, ((.[-1][0] - $from + 1) / 48 | ceil)] | max) as $step
    | {
        from: $from,
        step: $step,
        bpm: (
          reduce group_by((.[0] - $from) / $step | floor)[] as $part
            ({}; .[($part[0][0] - $from) / $step | floor | tostring] = ($part | map(.[1]) | median | tidy))
          | [.[range(0; 48) | tostring]]
        ),
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
| reduce ("heart_rate", "resp_rate", "spo2", "skin_temp", "blood_pressure") as $sign
    ({}; .[$sign] = [$patient.pages[] | .[$sign] // [] | .[] | select(.[1] != null)])
| . as $raw
| select(any($raw[]; length > 0))

| (reduce ("heart_rate", "resp_rate", "spo2", "skin_temp") as $sign
    ({}; .[$sign] = ($raw[$sign] | map(select(.[1] | fits($sign))) | in_order))) as $good
| [$raw.blood_pressure[] | select((.[1] | fits("systolic")) and (.[2] | fits("diastolic")))] as $pressure

# The night against the patient's own baseline: 0.6745 * (median - baseline) / MAD.
| ($good.heart_rate | map(.[0] | floor) | unique | length) as $minutes
| ($good.heart_rate | map(.[1]) | median | tidy) as $median
| (($patient.hr_base | type) == "number" and ($patient.hr_mad | type) == "number" and $patient.hr_mad > 0) as $has_baseline
| (if $has_baseline and $minutes >= limits.minutes
   then 0.6745 * ($median - $patient.hr_base) / $patient.hr_mad | hundredths
   else null end) as $z

| ($good.spo2 | longest(. < limits.spo2)) as $low
| ($good.skin_temp | longest(. >= limits.fever)) as $hot
| ($pressure | max_by(.[1])) as $highest

| [
    (if $z != null and $z > limits.mod_z then {reason: "tachycardia", bpm: $median} else empty end),
    (if $z != null and $z < - limits.mod_z then {reason: "bradycardia", bpm: $median} else empty end),
    (if $highest != null and $highest[1] >= limits.systolic
     then {reason: "bp_crisis", systolic: $highest[1], diastolic: $highest[2], at: $highest[0]} else empty end),
    (if $low.minutes >= limits.spo2_minutes
     then {reason: "low_spo2", lowest: ($good.spo2 | map(.[1]) | min), minutes: $low.minutes} else empty end),
    (if $hot.n >= limits.fever_n
     then {reason: "fever", highest: ($good.skin_temp | map(.[1]) | max)} else empty end)
  ] as $findings

| [
    (("heart_rate", "resp_rate", "spo2", "skin_temp") as $sign
     | [$raw[$sign][] | .[1] | select(fits($sign) | not)]
     | select(length > 0) | {what: "implausible_\($sign)", n: length, values: (unique | .[:3])}),
    ([$raw.blood_pressure[] | select((.[1] | fits("systolic")) and (.[2] | fits("diastolic")) | not) | "\(.[1])/\(.[2])"]
     | select(length > 0) | {what: "implausible_blood_pressure", n: length, values: (unique | .[:3])}),
    ([$raw.blood_pressure[] | .[0] | select(tostring | test("(Z|[+-][0-9][0-9]:[0-9][0-9])$") | not)]
     | select(length > 0) | {what: "naive_times", n: length}),
    (if $minutes < limits.minutes then {what: "short_night", n: $minutes} else empty end),
    (if $has_baseline then empty else {what: "no_baseline"} end)
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
    curve: ($good.heart_rate | curve),
  }
