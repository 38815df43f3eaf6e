# the night of one patient
.pages[]
| {id: .id, minutes: (.minutes | lenght)}
| select(.minutes > )
