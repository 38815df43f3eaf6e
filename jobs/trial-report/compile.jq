# Both branches are done: `items("vitals")` are the site's nights, `items("statistics")` is the one answer
# about the population. Nights of less than two hours are counted and left out.

def tenths: if . == null then null else . * 10 | round / 10 | if . == floor then floor else . end end;

[items("vitals")] as $all
| ($all | map(select(.minutes >= 120)) | sort_by(.key)) as $nights
| first(items("statistics")) as $population
| ($nights | map(.median_hr)) as $hr
| {
    night: $run.night,
    zone: $params.zone,
    site: {
      patients: counts.vitals.items,
      nights: ($nights | length),
      short: ($all | length - ($nights | length)),
      no_data: counts.vitals.empty,
      missing: [failures | {stage, key, class}],
      hr_median: ($hr | median | tenths),
      hr_mad: ($hr | mad | tenths),
      hr_quartiles: [$hr | quantile(0.25, 0.75) | tenths],
    },
    population: $population,
    difference: (
      if $population.hr_median == null or $hr == [] then null
      else ($hr | median) - $population.hr_median | tenths
      end
    ),
    nights: ($nights | map({key, minutes, median_hr: (.median_hr | tenths), column: (.median_hr | round)})),
  }
