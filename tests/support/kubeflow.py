"""A stand-in for a cluster of Kubeflow's, which follows a compiled pipeline."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .projects import Project


@dataclass
class Cluster:
    """Follows a compiled pipeline and runs each step's command as a process of its own.

    Attributes:
        ran: The tasks whose command was run, in their order.
    """

    document: dict[str, Any]
    folder: Path
    project: Project
    environment: dict[str, str]
    ran: list[str] = field(default_factory=list)

    def run(self, **arguments: Any) -> bool:
        """Run the pipeline; returns whether all its steps ended well."""
        return self._dag(self.document["root"]["dag"], arguments) is not None

    def _dag(self, dag: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any] | None:
        results: dict[str, Any] = {}
        states: dict[str, str] = {}
        waiting = dict(dag["tasks"])
        while waiting:
            name = next(
                name
                for name, task in waiting.items()
                if not set(task.get("dependentTasks", [])) & set(waiting)
            )
            task = waiting.pop(name)
            trigger = task.get("triggerPolicy", {})
            upstream = {states[before] for before in task.get("dependentTasks", [])}
            always = trigger.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            if upstream - {"SUCCEEDED"} and not always:
                states[name] = next(iter(upstream - {"SUCCEEDED"}))
                continue
            values = self._inputs(task, inputs, results, states)
            if not self._holds(trigger.get("condition", ""), values):
                states[name] = "SKIPPED"
                continue
            results[name] = self._task(name, task, values)
            states[name] = "FAILED" if results[name] is None else "SUCCEEDED"
        return None if "FAILED" in states.values() else results

    def _task(self, name: str, task: dict[str, Any], values: dict[str, Any]) -> Any:
        component = self.document["components"][task["componentRef"]["name"]]
        if "parameterIterator" not in task:
            return self._component(name, component, values)
        iterator = task["parameterIterator"]
        items = values[iterator["items"]["inputParameter"]]
        each = [
            self._component(name, component, {**values, iterator["itemInput"]: item})
            for item in items
        ]
        if None in each:
            return None
        return {output: [one[output] for one in each] for output in each[0]}

    def _component(self, name: str, component: dict[str, Any], values: dict[str, Any]) -> Any:
        if "dag" not in component:
            return self._process(name, component, values)
        results = self._dag(component["dag"], values)
        if results is None:
            return None
        selected = component["dag"].get("outputs", {}).get("parameters", {})
        return {
            output: results[source["producerSubtask"]][source["outputParameterKey"]]
            for output, source in (
                (output, each["valueFromParameter"]) for output, each in selected.items()
            )
        }

    def _inputs(
        self,
        task: dict[str, Any],
        inputs: dict[str, Any],
        results: dict[str, Any],
        states: dict[str, str],
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, given in task.get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in given:
                values[name] = given["runtimeValue"]["constant"]
            elif "componentInputParameter" in given:
                values[name] = inputs[given["componentInputParameter"]]
            elif "taskOutputParameter" in given:
                source = given["taskOutputParameter"]
                values[name] = results[source["producerTask"]][source["outputParameterKey"]]
            else:
                state = states[given["taskFinalStatus"]["producerTask"]]
                values[name] = {"state": state, "error": {"message": "a step failed"}}
        return values

    def _holds(self, condition: str, values: dict[str, Any]) -> bool:
        text = re.sub(
            r"inputs\.parameter_values\['([^']+)'\]", lambda name: repr(values[name[1]]), condition
        )
        text = text.replace("&&", " and ").replace("||", " or ").replace("!(", "not (")
        return bool(eval(text)) if text else True

    def _process(self, name: str, component: dict[str, Any], values: dict[str, Any]) -> Any:
        container = self.document["deploymentSpec"]["executors"][component["executorLabel"]]
        container = container["container"]
        folder = self.folder / f"{len(self.ran)}-{name}"
        self.ran.append(name)

        def resolve(text: str) -> str:
            text = text.replace("{{$.pipeline_job_uuid}}", "0d5e-cluster")
            if found := re.fullmatch(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}", text):
                value = values[found[1]]
                return resolve(value) if isinstance(value, str) else json.dumps(value)
            found = re.fullmatch(
                r"\{\{\$\.outputs\.\w+\['([^']+)'\]\.(?:output_file|path)\}\}", text
            )
            return str(folder / found[1]) if found else text

        variables = {each["name"]: each["value"] for each in container["env"]}
        command = [resolve(part) for part in container["command"]]
        assert command[0] == "python3"
        done = subprocess.run(
            [str(self.project.path / ".venv/bin/python"), *command[1:]],
            env={**os.environ, **self.project.environment, **variables, **self.environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            print(done.stderr[-3000:])
            return None
        outputs = component.get("outputDefinitions", {})
        written = {
            output: (folder / output).read_text()
            for kind in ("parameters", "artifacts")
            for output in outputs.get(kind, {})
        }
        return {
            output: text
            if outputs.get("parameters", {}).get(output, {}).get("parameterType", "STRING")
            == "STRING"
            else json.loads(text)
            for output, text in written.items()
        }
