//! The report's tables about disputes: gas, blocks, censorship, bytes of every game, money.

use std::fmt;

use super::{
    game::ASKS_MAX,
    measured::Gas,
    report::{AtRate, Disputes, Model, Report},
    text::{grouped, maybe, table},
};

pub(super) fn tier_three(f: &mut fmt::Formatter<'_>, r: &Report, d: &Disputes) -> fmt::Result {
    let p = &r.params;
    writeln!(f, "### Tier 3: dispute")?;
    let gas = |g: &Gas| {
        format!(
            "{} ({})",
            grouped(g.gas),
            g.name.split_once(' ').map_or("", |(_, n)| n)
        )
    };
    table(
        f,
        &["what", "figure"],
        &[
            vec![
                "a wrong leaf that is executed and stands".into(),
                format!(
                    "{}: the leaf is exact, given openings that are (tier 1's collisions)",
                    d.wrong_leaf
                ),
            ],
            vec![
                format!(
                    "gas of the dearest of {} measured accusations of a step",
                    d.leaves - 1
                ),
                gas(&d.worst_leaf),
            ],
            vec!["gas of accusing the model itself".into(), gas(&d.worst_model)],
            vec![
                "gas of a whole dispute, at most, of those measured".into(),
                format!(
                    "{}, {} satoshis burned at {} wei a gas",
                    grouped(d.gas_max),
                    grouped(d.gas_sats),
                    grouped(p.base_fee)
                ),
            ],
            vec![
                "a dispute is over, blocks after the last reveal".into(),
                format!(
                    "{}: a window of {}, a clock of {} a side",
                    grouped(d.blocks_max),
                    grouped(p.window),
                    grouped(p.clock)
                ),
            ],
            vec![
                "moves on one clock".into(),
                format!(
                    "{} of the challenger, {} of the neuron",
                    d.challenger_moves, d.neuron_moves
                ),
            ],
        ],
    )?;
    writeln!(
        f,
        "Miners who leave a player's moves out, and the chance that its clock of {} runs out first:",
        grouped(p.clock)
    )?;
    let rows: Vec<Vec<String>> = d
        .censored
        .iter()
        .map(|c| {
            vec![
                c.share.to_string(),
                c.challenger.to_string(),
                c.neuron.to_string(),
            ]
        })
        .collect();
    table(
        f,
        &["share of the hash power", "the challenger's", "the neuron's"],
        &rows,
    )?;
    writeln!(
        f,
        "Measured on a devnet, SmolLM2-135M, 37 prompt ids and 16 outputs (a silent side waits for a clock of 60 there):"
    )?;
    let rows: Vec<Vec<String>> = d
        .measured
        .iter()
        .map(|d| {
            vec![
                d.lie.clone(),
                grouped(d.rounds),
                grouped(d.gas),
                grouped(d.vbytes),
                grouped(d.blocks),
            ]
        })
        .collect();
    table(f, &["lie", "rounds", "gas", "virtual bytes", "blocks"], &rows)
}

pub(super) fn one_model(f: &mut fmt::Formatter<'_>, m: &Model) -> fmt::Result {
    let s = &m.shape;
    writeln!(f, "#### Disputes about {}", s.name)?;
    writeln!(
        f,
        "\n{} layers (a residual row every {}), width {}, {} heads of {} over {}, {} inside, vocabulary {}, context {}, up to {} sites a unit.",
        grouped(s.layers),
        grouped(s.stride),
        grouped(s.d_model),
        grouped(s.heads),
        grouped(s.head_dim),
        grouped(s.kv_heads),
        grouped(s.d_ff),
        grouped(s.vocab),
        grouped(s.positions),
        grouped(s.sites)
    )?;
    writeln!(
        f,
        "Longest game: {} rounds, {} blocks where every move is in the next one. Answers: {} bytes at most; the bond pays for {}.",
        m.rounds,
        m.blocks_min,
        grouped(m.answer_bytes),
        grouped(m.bond_bytes)
    )?;
    let rows: Vec<Vec<String>> = m
        .ways
        .iter()
        .map(|w| {
            vec![
                w.about.to_owned(),
                w.rounds.to_string(),
                grouped(w.answers),
                grouped(w.accusation),
                grouped(w.challenger_vbytes),
                grouped(w.neuron_vbytes),
                grouped(w.vbytes()),
            ]
        })
        .collect();
    table(
        f,
        &[
            "lie about",
            "rounds",
            "bytes of answers",
            "bytes of the accusation",
            "virtual bytes of the challenger",
            "of the neuron",
            "together",
        ],
        &rows,
    )?;
    if let Some(w) = &m.dearest {
        let rates = m
            .rates
            .iter()
            .map(|a| (grouped(a.rate), grouped(a.rate * w.vbytes())));
        let (rates, sats): (Vec<String>, Vec<String>) = rates.unzip();
        writeln!(
            f,
            "The dearest, {}: {} satoshis at {} sat/vB.",
            w.about,
            sats.join(" / "),
            rates.join(" / ")
        )?;
    }
    writeln!(
        f,
        "{} asks that only do harm make the neuron inscribe {} virtual bytes ({} bytes of answers); they cost the challenger {}, and its bond pays for {}.\n",
        ASKS_MAX,
        grouped(m.griefing.neuron_vbytes),
        grouped(m.griefing.bytes),
        grouped(m.griefing.challenger_vbytes),
        grouped(m.griefing.bond_vbytes)
    )
}

pub(super) fn money(f: &mut fmt::Formatter<'_>, r: &Report) -> fmt::Result {
    let p = &r.params;
    writeln!(f, "### Money")?;
    writeln!(
        f,
        "\nSatoshis, for the dearest game about the job above. Collateral {}, bond at {} sat/vB. A lie is caught but for {}, and a caught liar loses half of its collateral for sure.",
        grouped(p.collateral),
        grouped(p.bond_rate),
        r.paid
    )?;
    let row = |m: &Model, a: &AtRate| {
        vec![
            m.shape.name.to_owned(),
            grouped(a.rate),
            grouped(a.game),
            grouped(a.challenger),
            grouped(a.neuron),
            grouped(a.bond),
            grouped(a.reward),
            maybe(a.collateral_min, "none deters"),
            maybe(a.jobs_a_lie, "never"),
            grouped(a.griefed_neuron),
            grouped(a.griefing_challenger),
        ]
    };
    let models = &r.disputes.models;
    let rows: Vec<Vec<String>> = models
        .iter()
        .flat_map(|m| m.rates.iter().map(move |a| row(m, a)))
        .collect();
    table(
        f,
        &[
            "model",
            "sat/vB",
            "a game",
            "challenger spends",
            "neuron spends",
            "bond",
            "challenger's reward",
            "least collateral",
            "checking pays at one lie in",
            "neuron after harmful asks",
            "which cost",
        ],
        &rows,
    )?;
    writeln!(
        f,
        "*Least collateral*: the fee, what makes a lie no better than honest work, and twice what a challenger spends, whichever is most.\n*Neuron after harmful asks*: the bond less what the dearest asks make it inscribe, whatever the job; below 0 it loses that much.\n"
    )
}
