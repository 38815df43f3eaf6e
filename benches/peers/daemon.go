// A peer of the daemon bench: robfig/cron over a crontab whose lines begin with seconds.
//
//	daemon CRONTAB
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/robfig/cron"
)

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	jobs := cron.New(cron.WithSeconds())
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		fields := strings.SplitN(line, " ", 7)
		command := fields[6]
		_, err := jobs.AddFunc(strings.Join(fields[:6], " "), func() { exec.Command("sh", "-c", command).Run() })
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	jobs.Run()
}
