# The night in numbers and names: this is vitals.json. A gather: `items` streams what assess.jq gave,
# `failures` whom it could not be asked for, `counts` how many; `.` is null.
# Sorted by key, and nothing in it depends on when or how fast it was made: the same night, the same bytes.

counts.vitals as $n
| (reduce (items | select(.reasons != [] or .data_quality != [])) as $p (
    {anomalies: [], data_quality: []};
    (if $p.reasons != [] then .anomalies += [$p | {key, reasons, minutes}] else . end)
    | .data_quality += [$p.data_quality[] | {key: $p.key, what}]
  )) as $seen
| {
    night: $run.night,
    patients: $n.items,
    reached: ($n.ok + $n.empty),
    no_data: $n.empty,
    failed: ([failures | {key, class, attempts}] | sort_by(.key)),
    anomalies: ($seen.anomalies | sort_by(.key)),
    data_quality: ($seen.data_quality | sort_by(.key, .what)),
  }
