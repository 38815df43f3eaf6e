# One patient's night in three numbers. Gives nothing (the item ends `empty`) when nothing was measured.

[.pages[] | .heart_rate[] | select(.[1] != null and .[1] >= 20 and .[1] <= 300 and .[1] != 255)]
| select(. != [])
| {
    key: $key,
    minutes: (map(.[0] | floor) | unique | length),
    median_hr: (map(.[1]) | median),
  }
