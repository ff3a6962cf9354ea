// octet eval MODEL --data DATA
#include <fmt/format.h>

#include <memory>

#include "cli/common.h"
#include "cli/team.h"

namespace octet::cli {

namespace {

void add_eval(CommandLine& program) {
  struct Options {
    std::string model, data;
    bool json = false;
    DataOptions sampling;
    ShapeOptions shape;
    RunOptions run;
  };
  auto o = std::make_shared<Options>();
  Command command = program.add_command("eval", "top-1 accuracy on labelled data");
  command.add_option("MODEL", o->model, ".onnx or .octet").type_name("").required();
  command.add_option("--data", o->data, "an .npz with `images` and `labels`")
      .type_name("DATA")
      .required();
  command.add_flag("--json", o->json, "print one JSON object");
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer("Example: octet eval net.octet --data test.npz");
  command.callback(
      [o] {
        o->run.apply();
        graph::Graph graph = load_model(o->model, o->shape.shapes());
        Dataset dataset = o->sampling.open(o->data, graph);
        runtime::Program program = runtime::compile(graph);
        print_warnings(program);
        Accuracy a = evaluate(program, dataset, o->sampling.count(dataset), "evaluating");
        leave_team();
        if (o->json) {
          print_json(JsonValue::object(
              {{"top1", a.top1()}, {"samples", a.samples}, {"seconds", a.seconds}}));
        } else {
          fmt::print("top-1 {:.4f} ({} of {} right) in {:.2f} s\n", a.top1(), a.correct, a.samples,
                     a.seconds);
        }
      },
      Command::Ranks::several);
}

const RegisteredCommand g_eval("eval", add_eval);

}  // namespace

}  // namespace octet::cli
