# All nights -> what the page draws: {from, to, days, patients: [{patient, nights: [..]}]}.
# `day` counts from the first night of all, so that every chart has the same calendar below it.

def day: . + "T00:00:00Z" | fromdate / 86400 | floor;

[items]
| select(. != [])                       # nothing to draw: no page
| (map(.night) | min) as $from
| (map(.night) | max) as $to
| {
    from: $from,
    to: $to,
    days: (($to | day) - ($from | day) + 1),
    nights: length,
    valid: (map(select(.valid == 1)) | length),
    flagged: (map(select(.flag == 1)) | length),
    patients: (group_by(.patient) | map({patient: .[0].patient, nights: map(. + {day: ((.night | day) - ($from | day))})})),
  }
