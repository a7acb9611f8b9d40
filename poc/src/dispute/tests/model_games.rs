//! The recorded games about models that break the tensor spec, and about sound ones that are accused of it.

use bitai_kernels::load::needs;
use serde_json::Value;

use super::{
    draw_games::Script,
    games::record,
    model::{set, weight},
    *,
};

/// A neuron that is not asked anything.
struct Unasked;

impl Defend for Unasked {
    fn answer(&mut self, _: &Ask) -> Result<Answer, DisputeError> {
        Err(DisputeError::Kind("not asked"))
    }
}

/// A claim that nobody computed: a broken model convicts whatever it says.
fn judge(model: &Model) -> Judge {
    let job = small(model, Sampler::GREEDY);
    model.judge_root(&job, &[1; 6], TraceRoot(B256::repeat_byte(9)))
}

/// Models, one with every fault, and the games about them; `first` is the number of the first of them in the file.
pub(super) fn games(first: usize) -> (Vec<Model>, Vec<Value>) {
    let (mut models, mut games) = (vec![], vec![]);
    let mut broken = |name: &str, model: Model| {
        let mut challenger = ModelChallenger(model.pack());
        let name = format!("a model with {name}");
        let at = first + models.len();
        games.push(record(
            &name,
            at,
            &mut judge(&model),
            &mut challenger,
            &mut Unasked,
        ));
        models.push(model);
    };
    let mut model = Model::new(1);
    let id = weight(&model, Some(0), "linear", 3).q;
    set(&mut model, id, 100, 0x80);
    broken("a weight of -128", model);
    let mut model = Model::new(1);
    let id = weight(&model, None, "embed", 0).mult.unwrap();
    set(&mut model, id, 5, 16);
    broken("a multiplier of 16", model);
    // 8,864 weights of 127 times 15 times 128 reach 2^31.
    let mut model = Model::wide(1, 8_864);
    let w = weight(&model, Some(0), "linear", 6);
    for (id, byte) in [(w.q, 127), (w.mult.unwrap(), 15)] {
        let t = &mut model.tensors[id as usize];
        let mut data = t.data().to_vec();
        data[3 * t.cols..4 * t.cols].fill(byte);
        *t = HostTensor::owned(t.dtype, t.rows, t.cols, data);
    }
    broken("a row that sums to too much", model);
    for (what, name, other) in [
        ("norm's gains of another length", "rms_norm", DType::I32),
        ("norm's gains of another type", "rms_norm", DType::Scale),
        ("a rotary table of another length", "rope", DType::I16),
    ] {
        let mut model = Model::new(1);
        let site = &model.program.sites[model.sites(Some(0), name)[0] as usize];
        let need = needs(&model.program, &site.op)[0];
        let cols = if other == need.dtype {
            need.cols - 2
        } else {
            need.cols
        };
        let bytes = vec![1; need.rows * cols * other.size()];
        model.tensors[need.id as usize] = HostTensor::owned(other, need.rows, cols, bytes);
        broken(what, model);
    }

    let sound = Model::new(1);
    let pack = sound.pack();
    let embed = sound.sites(None, "embed")[0];
    let down = sound.sites(Some(0), "linear")[6];
    let (table, w) = (
        weight(&sound, None, "embed", 0),
        weight(&sound, Some(0), "linear", 6),
    );
    let open = |weight: &Weight, k, row| pack.open_weights(weight, k, row, 0..k).unwrap();
    let line = |id| pack.open_line(id).unwrap();
    for (name, fault) in [
        (
            "row of a table",
            ModelFault::Row {
                site: embed,
                row: 299,
                w: open(&table, D, 299),
            },
        ),
        (
            "row of a linear",
            ModelFault::Row {
                site: down,
                row: 5,
                w: open(&w, FF, 5),
            },
        ),
        (
            "scales",
            ModelFault::Shape {
                site: down,
                id: w.scale,
                line: line(w.scale),
            },
        ),
        (
            "multipliers",
            ModelFault::Shape {
                site: embed,
                id: table.mult.unwrap(),
                line: line(table.mult.unwrap()),
            },
        ),
    ] {
        let mut last = |_: &Judge| Accusation::Model(fault.clone());
        let mut challenger = Script {
            asks: vec![].into_iter(),
            last: &mut last,
        };
        let name = format!("a sound model accused of its {name}");
        games.push(record(
            &name,
            0,
            &mut judge(&sound),
            &mut challenger,
            &mut Unasked,
        ));
    }
    (models, games)
}
