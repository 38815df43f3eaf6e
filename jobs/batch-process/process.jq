# One patient -> a line of figures. Gives nothing (the item ends `empty`) when the watch measured nothing.
# Change it to whatever is to be done with one patient; `.` is {id, pages: [the vendor's answers]}.

[.pages[] | .heart_rate[] | .[1] | select(. != null and . >= 20 and . <= 300 and . != 255)]
| select(. != [])
| {
    id: $key,
    samples: length,
    lowest: min,
    median: (median | if . == floor then floor else . end),   # 57.0 is written as 57
    highest: max,
  }
