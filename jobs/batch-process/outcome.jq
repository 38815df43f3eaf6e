# Everybody at a glance. `items` are the values of those who are done, `failures` the others, in the order
# of the list; `counts` says how many. The same answers of the vendor, the same bytes.

counts.process as $n
| {
    night: $run.night,
    asked: counts.ids.items,
    done: [items],
    no_data: $n.empty,
    missing: [failures | {key, class, attempts}],
  }
