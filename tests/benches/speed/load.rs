//! Many callers at once, and neighbours that behave badly.

use std::time::{Duration, Instant};

use crate::measure::{Times, alone, effort};
use crate::report::{Figure, Report, Row};
use crate::sides::{Warm, call};

/// Calls a second with more callers.
pub fn throughput(report: &mut Report) {
    let warm = Warm::start();
    warm.bash(":");
    let rate = |callers: usize| {
        let span = Duration::from_secs(2);
        let count: usize = warm.runtime.block_on(async {
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let broker = warm.broker.clone();
                    tokio::spawn(async move {
                        let until = Instant::now() + span;
                        let mut count = 0_usize;
                        while Instant::now() < until {
                            let result = call(&broker, "bash", r#"{"command":":"}"#, None).await;
                            assert_eq!(result.exit_code, Some(0), "{result:?}");
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            let mut count = 0;
            for task in tasks {
                count += task.await.unwrap();
            }
            count
        });
        count as f64 / span.as_secs_f64()
    };
    // In turn, so that both sides meet the same machine.
    let mut rates = [(1, 0.0), (2, 0.0), (8, 0.0), (64, 0.0)];
    const TURNS: usize = 4;
    for _ in 0..TURNS {
        for (callers, sum) in &mut rates {
            *sum += rate(*callers) / TURNS as f64;
        }
    }
    let one = rates[0].1;
    for (callers, many) in &rates[1..] {
        let row = Row::numbers(format!("calls a second, {callers} callers / 1"), "/s", *many, one);
        report.rows.push(if *callers == 8 { row.at_least(1.7) } else { row });
    }
}

/// How much one workspace suffers from another one.
pub fn neighbour(report: &mut Report) {
    let quiet_side = Warm::start();
    let noisy = Warm::start();
    let latencies =
        |rounds: usize, seconds: u64| -> Times { alone(effort(rounds, seconds), || quiet_side.bash(":")) };
    let troubles = [
        ("fork bomb", "f() { f | f & }; f; sleep 20"),
        ("flood of output", "yes | head -c 20000000000; sleep 20"),
        ("two busy loops", "(while :; do :; done) & while :; do :; done"),
    ];
    for (name, command) in troubles {
        let quiet = latencies(500, 5);
        let arguments = serde_json::json!({"command": command, "timeout_s": 14}).to_string();
        let broker = noisy.broker.clone();
        let task = noisy.runtime.spawn(async move { call(&broker, "bash", &arguments, None).await });
        std::thread::sleep(Duration::from_millis(500));
        let loud = latencies(500, 10);
        let went_on = !task.is_finished();
        noisy.runtime.block_on(task).unwrap();
        if went_on {
            let row = Row::times(format!("with a neighbour's {name} / quiet"), (loud, quiet));
            report.rows.push(row.at_most(Figure::P99, 3.0));
        } else {
            report.remarks.push(format!("not measured: the neighbour's {name} ended too early"));
        }
    }
}
