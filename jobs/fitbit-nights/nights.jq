# One patient's rows (a gather: `items` are the rows of this patient, `$key` is the patient)
# -> one value for each night that has data, oldest first. `$state` holds the medians of valid nights
# before those rows: null in fitbit-nights.ron, which reads all nights at once.
#
# A night is 00:00-05:59 of a date, in the watch's own wall time. It is valid with 120 minutes of
# data or more. A valid night is judged against the valid nights before it, the last 14 at most,
# once there are 5 of them: modified z = 0.6745 * (median - their median) / their MAD.

# 15.0 is written as 15: the numbers of the CSV are the shortest ones.
def tidy: if . == null then null elif . == floor then floor else . end;

# A number as text with exactly four decimals: 1.349 -> "1.3490". Rounded as printf("%.4f") does it:
# `. * 10000` alone would lose the last bit that decides a near tie, `fma` keeps it.
def four_decimals:
  fabs as $x
  | ($x * 10000 | floor) as $n
  | fma($x; 10000; - ($n + 0.5)) as $over          # > 0: above the half, < 0: below it
  | (if $over > 0 or ($over == 0 and $n % 2 == 1) then $n + 1 else $n end | tostring) as $digits
  | ("00000"[($digits | length):] + $digits) as $d
  | (if . < 0 and ($d | test("[1-9]")) then "-" else "" end) + $d[:-4] + "." + $d[-4:];

# No judgement: the columns are there, and empty.
def judgement($earlier; $x):
  if ($earlier | length) < 5 then {baseline_median: null, baseline_mad: null, mod_z: null, flag: null}
  else
    ($earlier | mod_z($x)) as $z          # null when the MAD is 0: then nothing can be said
    | {
        baseline_median: ($earlier | median | tidy),
        baseline_mad: ($earlier | mad | tidy),
        mod_z: (if $z == null then null else $z | four_decimals end),
        flag: (if $z == null then "mad0" elif $z > 3.5 or $z < -3.5 then 1 else 0 end),
      }
  end;

# CSV values are texts, so `tonumber`.
[items | {night: .time[:10], hr: (.hr | tonumber)}]
| group_by(.night)
| foreach .[] as $rows (
    {earlier: ($state // [])};            # medians of the valid nights so far, the last 14
    ([$rows[].hr]) as $hr
    | ($hr | median) as $x
    | ($hr | length >= 120) as $valid
    | .night = {
        patient: $key,
        night: $rows[0].night,
        minutes: ($hr | length),
        median_hr: ($x | tidy),
        min_hr: ($hr | min),
        max_hr: ($hr | max),
        valid: (if $valid then 1 else 0 end),
      } + (if $valid then judgement(.earlier; $x) else judgement([]; $x) end)
    | if $valid then .earlier = (.earlier + [$x])[-14:] else . end;
    .night
  )
